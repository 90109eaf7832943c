"""Names such as BSDS500@rain: what is trained on, what is tested, what is refused, and exact resume."""
import json
from pathlib import Path

import numpy as np
import pytest

import option
from data import added, loader, source, weather
from data.added import split
from data.choose import choose
from runtime import process
from runtime.errors import UserError
from tests.conftest import TINY, make_pairs, photo, save
from tests.test_resume import LONG, same, stop_after

SIDE = "dataset/Rain800/{}/{}.png"


@pytest.fixture
def photos(place) -> Path:
    """dataset/set: six pairs with masks; dataset/Rain800: a training and a test part, both images in one file."""
    for part, first in (("train", 10), ("test", 20)):
        for number in range(4):
            clean = photo(60, 50, first + number)
            save(Path(SIDE.format(part, number)), np.hstack([clean, 255 - clean]))
    return make_pairs(place / "dataset/set", 6, masks=True)


def chosen(name: str, role: str = "test", *flags: str, train: str = "DemoRain"):
    process._log = process.Log()
    both = ("--data_train", name, "--data_test", "DemoRain") if role == "train" else ("--data_train", train, "--data_test", name)
    return choose(option.parse([*both, *flags]), name, role)


def inputs(name: str, *flags: str) -> list[np.ndarray]:
    return [source.read(item.images["input"]) for item in chosen(name, "test", *flags).items]


@pytest.mark.parametrize("name, clean", [("set@rain", "set"), ("Rain800@haze", "Rain800"), ("DemoSnow@rain", "DemoSnow"),
                                         ("pairs.json@snow", "set")])
def test_any_set_counts_as_photos(photos, name, clean):
    """The clean images of pairs in files, of halves of files, of embedded sets and of lists; inputs and masks of the set are not used."""
    rows = [[str(photos / f"{part}/0{number}.png") for part in ("target", "input")] for number in range(6)]
    Path("pairs.json").write_text(json.dumps(rows))
    found, own = chosen(name).items, chosen(clean).items
    assert len(found) == len(own) > 1
    for item, other in zip(found, own):
        target = source.read(item.images["image"])
        assert np.array_equal(target, source.read(other.images["image"])) and ("mask" in item.images) == name.endswith("snow")
        pixels = source.read(item.images["input"])
        assert pixels.shape == target.shape and not np.array_equal(pixels, target)
        source.check_sizes([item])
        assert str(source.path_of(item.images["input"])).endswith(str(source.path_of(other.images["image"])))


def test_a_test_set_is_fixed(photos):
    """One degradation for each image, which depends only on --seed, the set and the index; the mask belongs to it."""
    for kind in weather.KINDS:
        first = inputs(f"set@{kind}")
        assert all(np.array_equal(one, other) for one, other in zip(first, inputs(f"set@{kind}0.5-1.5")))
        assert not any(np.array_equal(one, other) for one, other in zip(first, inputs(f"set@{kind}", "--seed", "2")))
        assert not any(np.array_equal(one, other) for one, other in zip(first, inputs(f"set@{kind}2-3")))
        found = chosen(f"set@{kind}")
        assert found.task == kind
        assert len({item.images["input"].value for item in found.items}) == len(found.items)
    for item in chosen("set@snow").items:
        mask, change = (source.read(item.images[key]).astype(int) for key in ("mask", "input"))
        change = np.abs(change - source.read(item.images["image"]))
        assert mask.max() > 100 and change[mask == 0].max() <= 14
    assert "mask" not in chosen("set@rain").items[0].images


@pytest.mark.parametrize("name", ["set@25", "set@25f", "set@rain1"])
def test_training_draws_anew_what_a_test_fixes(photos, name):
    """Two epochs have different noise, also of a single level, and neither is that of the test; crops are as large as the images."""
    images = loader.Images(chosen(name, "train").items, ("image",), seed=1, patch_size=40)
    first, second = (images[(epoch, 0, 0)] for epoch in (1, 2))
    assert not any(each.input.equal(each.targets["image"]) for each in (first, second))
    added = [(each.input - each.targets["image"]).numpy() for each in (first, second)]
    fixed = (inputs(name)[0] / 255 - source.read(chosen(name).items[0].images["image"]) / 255).transpose(2, 0, 1)
    assert not np.allclose(*added) and not any(np.allclose(each, fixed[:, :, left:left + 40]) for each in added for left in range(9))


def test_any_takes_the_kinds_in_turn_in_a_test(photos):
    found = chosen("set@any")
    assert [item.images["input"].how for item in found.items] == ["noise", *weather.KINDS, "noise", "rain"] and found.task == ""
    assert [item.images["input"].value[0] for item in found.items] == [25, 1, 1, 1, 25, 1]
    assert np.array_equal(inputs("set@any")[1], inputs("set@rain")[1]) and np.array_equal(inputs("set@any")[4], inputs("set@25")[4])


@pytest.mark.parametrize("text, expected", [
    ("rain", ("rain", 0.5, 1.5)), ("any2", ("any", 2, 2)), ("haze0-5", ("haze", 0, 5)), ("snow.5", None), ("25f", ("float noise", 25, 25)),
    ("0-55", ("noise", 0, 55)), ("rain1.25-1.5", ("rain", 1.25, 1.5)),
])
def test_the_text_after_the_at_sign(text, expected):
    assert added.parsed(text) == expected


@pytest.mark.parametrize("text", [
    "fog", "rain:1", "Rain", "rain1-", "rain2-1", "rain0-5.1", "rain-1", "rain1f", "rain1e0", "any²", "rain٣", "noise", "9" * 5000,
    "rain" + "9" * 5000, "rain@snow", "25-10", "",
], ids=lambda text: text[:9])
def test_bad_names(photos, fails, text):
    """One sentence with status 2 that lists what is known."""
    for flag in ("--data_train", "--data_test"):
        sentence = fails("--data_train", "set", flag, f"set@{text}", "--save", "x", *TINY)
        assert "one of rain, snow, haze, any, also with a strength or a range of strengths from 0 to 5" in sentence and len(sentence) < 700


def test_images_without_clean_ones(photos):
    save(Path("folder/a.png"), photo(30, 30, 1))
    for text in ("rain", "25"):
        with pytest.raises(UserError, match="Demo has no clean images, and noise and weather can be added only to clean images"):
            chosen(f"Demo@{text}", "test", "--dir_demo", "folder")
    save(Path("dataset/CBSD68/a.png"), photo(30, 30, 1))
    with pytest.raises(UserError, match=r"name a noise level, as in CBSD68@25, .* or weather, as in CBSD68@rain"):
        chosen("CBSD68")


def test_photos_are_held_out_whatever_is_added(photos):
    """A photo that is tested under one weather is not trained on under another; parts of their own are used as they are."""
    for name in ("set@haze", "set@0-55", "set"):
        args = option.parse(["--data_train", f"{name}+Rain800@any", "--data_test", "set@rain+Rain800@25"])
        assert len(choose(args, name, "train").items) == 5
        assert [item.name for item in choose(args, "set@rain", "test").items] == ["05"]
        assert len(choose(args, "Rain800@any", "train").items) == len(choose(args, "Rain800@25", "test").items) == 4
    args = option.parse(["--data_train", "set@0-55", "--data_test", "set@25"])      # noise alone: as in earlier versions
    assert len(choose(args, "set@0-55", "train").items) == 6


def test_leaks_are_found(run, photos):
    """A photo in the training set under snow that is also in the test set under rain is named, and left out on demand."""
    noise = np.random.default_rng(1).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    save(Path("dataset/set/target/00.png"), noise)
    save(Path("dataset/set/input/00.png"), noise)
    save(Path("dataset/other/input/x.png"), noise)
    save(Path("dataset/other/target/x.png"), noise)
    status, text = run("--data_train", "set@snow", "--data_test", "other@rain", "--exclude_leaks", "--save", "x", *TINY)
    assert status == 0 and "1 of 6 training images show a scene of a test set: 00 (other@rain x); they are left out" in text


def test_a_run_states_what_was_drawn(run, photos):
    """Training on a mixture, the snow masks as a target, the cache, results, the page, --explain, --list, and tool.verify afterwards."""
    joined = "set@snow0.5-2+Rain800@snow"
    status, text = run("--data_train", joined, "--data_test", "Rain800@rain2-3+set@any", "--loss", "1*L1+1*L1:mask", "--save", "x",
                       "--protocol", "two_stage_kd", *TINY)
    assert status == 0, text
    assert "set@snow0.5-2: snow of strength 0.5-2, drawn anew for every crop" in text
    assert "Rain800@rain2-3: 4 images" in text and "; rain of strength 2, drawn for each image]" in text
    results = json.loads(Path("experiment/x/metrics.json").read_text())
    assert results["Rain800@rain2-3"]["channel"] == "y" and results["set@any"]["channel"] == "rgb"
    assert results["set@any"]["degradation"] == "noise of sigma 25, or rain, snow, haze of strength 1, drawn for each image"
    assert results["Rain800@rain2-3"]["degradation"] in Path("experiment/x/report.html").read_text()
    assert json.loads(Path("experiment/x/args.json").read_text())["data_train"] == joined
    kept = sorted(str(path.relative_to("dataset/bin/1")).partition(".png")[0] for path in Path("dataset/bin/1").rglob("*.npy"))
    assert kept == [*(f"Rain800/{part}/{number}" for part in ("test", "train") for number in range(4)),
                    *(f"set/target/0{number}" for number in range(6))]
    assert f"--data_train {joined}" in run("--load", "x", "--explain")[1]
    assert "NAME@rain" in run("--list")[1]
    from tool import verify
    verify.run(["set", "--dir_data", "dataset"])


def test_a_loss_on_masks_needs_snow(photos, fails):
    sentence = fails("--data_train", "set@snow+set@rain", "--data_test", "Rain800@25", "--loss", "1*L1+1*L1:mask", "--save", "x",
                       "--protocol", "two_stage_kd", *TINY)
    assert "needs the target 'mask', which 6 of 12 images" in sentence


@pytest.mark.parametrize("threads", ["0", "2"])
def test_exact_resume(run, photos, monkeypatch, threads):
    """A training that is stopped twice and resumed with another number of workers equals one that ran through."""
    test = "set@haze"
    flags = ["--model", "unet", "--channels", "4", "--data_train", "set@any+set@rain+Rain800@0-55", "--data_test", test, "--no-audit",
             *LONG, "--patch_size", "32"]
    status, text = run(*flags, "--save", "whole")
    assert status == 0, text
    stops, status = 0, None
    while status != 0:
        with monkeypatch.context() as patch:
            stop_after(patch, 4)
            status, text = run(*flags, "--n_threads", threads, "--save", "parts", "--resume", "auto")
        assert status in (0, 143), text
        stops += status == 143
    assert stops == 2
    same(Path("experiment/whole"), Path("experiment/parts"), f"metrics-{test}.csv")


@pytest.mark.parametrize("name", ["@rain", "@25"])
def test_an_addition_needs_a_data_set(name):
    with pytest.raises(UserError, match=f"'{name}' names no data set; before the @ stands a set of clean photos, as in BSDS500{name}"):
        split(name)
