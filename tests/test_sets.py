"""Every named data set in the layouts of its published copies, lists, noise levels."""
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import option
from data import paired, source
from data.choose import choose
from data.loader import Images
from data.sets import DATASETS
from runtime import process
from runtime.errors import UserError
from tests.conftest import TINY, photo, save, veiled

LAYOUTS = [          # set, role, input files, the clean files of these inputs
    ("Rain100L", "test", ["input/1.png"], ["target/1.png"]),
    ("Rain100L", "test", ["rainy/rain-001.png"], ["gt/norain-001.png"]),
    ("Rain100L", "train", ["train/rain-1.png"], ["train/norain-1.png"]),
    ("Rain100H", "test", ["test/rainy/rain-7.png"], ["test/gt/norain-7.png"]),
    ("Rain100H", "test", ["rain/norain-1.png", "rain/norain-2.png"], ["norain/norain-1.png", "norain/norain-2.png"]),
    ("Rain100H", "test", ["rain/1.png"], ["norain/1.jpg"]),
    ("Rain100H", "train", ["train/rain/norain-1.png"], ["train/norain/norain-1.png"]),
    ("Rain100L", "test", ["rainy/norain-001.png"], ["gt/norain-001.png"]),
    ("Rain100H", "test", ["rain/rain-001.png"], ["norain/norain-001.png"]),
    ("RainTrainL", "train", ["rain-1.png", "rain-2.png"], ["norain-1.png", "norain-2.png"]),
    ("RainTrainH", "train", ["rain-1.png"], ["norain-1.png"]),
    ("Rain12", "test", ["001_in.png"], ["001_GT.png"]),
    ("Rain1400", "train", ["training/rainy_image/9_1.jpg", "training/rainy_image/9_14.jpg"], ["training/ground_truth/9.jpg"] * 2),
    ("Rain12600", "train", ["rainy_image/9_1.jpg"], ["ground_truth/9.jpg"]),
    ("Snow100K", "train", ["train/synthetic/a.jpg"], ["train/gt/a.jpg"]),
    ("Snow100K-L", "test", ["synthetic/a.jpg"], ["gt/a.jpg"]),
    ("CSD", "test", ["Test/Snow/1.tif"], ["Test/Gt/1.tif"]),
    ("CSD", "train", ["train/snow/1.tif"], ["train/gt/1.tif"]),
    ("SRRS", "train", ["Syn/1.tif"], ["Gt/1.tif"]),
    ("RESIDE_ITS", "train", ["hazy/12_3_0.9.png"], ["clear/12.png"]),
    ("RESIDE_OTS", "train", ["hazy/0005_0.8_0.04.jpg"], ["clear/0005.png"]),
    ("SOTS_indoor", "test", ["hazy/1400_1.png"], ["gt/1400.png"]),
    ("SOTS_indoor", "test", ["input/1400_1.png"], ["target/1400_1.png"]),
    ("SOTS_outdoor", "test", ["hazy/0001_0.8_0.2.jpg"], ["gt/0001.png"]),
    ("Outdoor-Rain", "train", ["train/in/im_0001_s80_a04.png"], ["train/gt/im_0001.png"]),
    ("Raindrop", "train", ["train/data/0_rain.png"], ["train/gt/0_clean.png"]),
    ("Raindrop", "test", ["test_a/data/0_rain.png"], ["test_a/gt/0_clean.png"]),
    ("Raindrop", "test", ["input/0_rain.png"], ["gt/0_clean.png"]),
    ("Outdoor-Rain", "test", ["test1/input/im_0001_s80_a04.png"], ["test1/gt/im_0001.png"]),
    ("Snow100K-L", "test", ["input/a.jpg"], ["gt/a.jpg"]),
    ("Snow100K-L", "test", ["input/a.jpg"], ["target/a.jpg"]),
    ("Rain200L", "test", ["test/rain/X2/norain-1x2.png", "test/rain/X2/norain-2x2.png"],
     ["test/norain/norain-1.png", "test/norain/norain-2.png"]),
    ("Rain200H", "train", ["train/rain/norain-1x2.png"], ["train/norain/norain-1.png"]),
    ("Rain200H", "train", ["train/input/1.png"], ["train/target/1.png"]),
    ("Rain200L", "test", ["test/rainy/rain-1.png"], ["test/gt/norain-1.png"]),
    ("GoPro", "test", ["test/G1_1/blur/1.png", "test/G2/blur/1.png"], ["test/G1_1/sharp/1.png", "test/G2/sharp/1.png"]),
    ("GoPro", "train", ["train/G1/blur/000001.png"], ["train/G1/sharp/000001.png"]),
    ("GoPro", "test", ["test/input/G1-1.png"], ["test/target/G1-1.png"]),
    ("GoPro", "train", ["train/blur/G1-1.png"], ["train/sharp/G1-1.png"]),
    ("LOL", "test", ["eval15/low/1.png"], ["eval15/high/1.png"]),
    ("LOL", "train", ["our485/low/2.png"], ["our485/high/2.png"]),
    ("WeatherBench", "test", ["rain/test/input/1.jpg", "snow/test/input/1.jpg"], ["rain/test/target/1.jpg", "snow/test/target/1.jpg"]),
    ("WeatherBench", "train", ["train/haze/input/1.jpg"], ["train/haze/target/1.jpg"]),
    ("Raindrop-b", "test", ["data/0_rain.jpg"], ["gt/0_clean.jpg"]),
]


def chosen(name: str, role: str, *flags: str):
    process._log = process.Log()
    both = ("--data_train", name) if role == "train" else ("--data_train", "Demo", "--data_test", name)
    return choose(option.parse([*both, "--ext", "img", *flags]), name, role)


@pytest.mark.parametrize("name, role, inputs, clean", LAYOUTS)
def test_layouts(place, name, role, inputs, clean):
    root = Path("dataset") / name
    for number, (one, other) in enumerate(zip(inputs, clean)):
        save(root / one, veiled(photo(20, 30, number)))
        save(root / other, photo(20, 30, number))
    found = chosen(name, role, *(("--data_range", "1-99") if role == "train" else ()))
    pairs = sorted((str(i.images["input"].relative_to(root)), str(i.images["image"].relative_to(root))) for i in found.items)
    assert pairs == sorted(zip(inputs, clean))
    assert found.task == DATASETS[name].task
    assert DATASETS[name].counts == {} or "are published" in "".join(process.log().waiting)


def test_a_folder_for_each_scene(place):
    """The names of images contain that of their scene; the part of the other role and folders without pairs are no scenes."""
    for number, scene in enumerate(("test/G10", "test/G2", "train/G3", "test/notes")):
        for folder in ("blur", "sharp") if scene != "test/notes" else ("videos",):
            save(Path("dataset/GoPro") / scene / folder / "000001.png", photo(20, 30, number))
    assert [item.name for item in chosen("GoPro", "test").items] == ["G2_000001", "G10_000001"]
    assert [item.name for item in chosen("GoPro", "train", "--data_range", "1-9").items] == ["G3_000001"]
    Path("dataset/GoPro/train/G3/blur/000001.png").rename("dataset/GoPro/train/G3/blur/000002.png")
    with pytest.raises(UserError, match=r"1 of 1 images in dataset/GoPro/train/G3/blur have no partner"):
        chosen("GoPro", "train", "--data_range", "1-9")


@pytest.mark.parametrize("weathers", [["rain", "snow"], [""]])
def test_a_test_part_alone_is_not_trained_on(place, weathers):
    for weather in weathers:
        for folder in ("input", "target"):
            save(Path("dataset/WeatherBench/test") / weather / folder / "1.png", photo(20, 30, 1))
    assert [item.name for item in chosen("WeatherBench", "test").items] == [f"{weather}_1".lstrip("_") for weather in weathers]
    with pytest.raises(UserError, match="does not have a known folder layout"):
        chosen("WeatherBench", "train", "--data_range", "1-9")


def test_side_by_side(place):
    clean, rainy = photo(20, 30, 1), veiled(photo(20, 30, 1))
    save(Path("dataset/Rain800/test/1.png"), np.hstack([clean, rainy]))
    item = chosen("Rain800", "test").items[0]
    assert np.array_equal(source.read(item.images["input"]), rainy) and np.array_equal(source.read(item.images["image"]), clean)
    source.check_sizes([item])


def test_clean_images_that_are_larger(place):
    whole = photo(40, 50, 1)
    save(Path("dataset/SOTS_indoor/hazy/1400_1.png"), veiled(whole[10:30, 10:40]))
    save(Path("dataset/SOTS_indoor/gt/1400.png"), whole)
    item = chosen("SOTS_indoor", "test").items[0]
    source.check_sizes([item])
    assert np.array_equal(source.read(item.images["image"]), whole[10:30, 10:40])


def test_noise_levels(place):
    """CBSD68@25: seeded by (seed, set, index), clipped, truncated; the noise has the level that the name states."""
    for number in range(2):
        save(Path(f"dataset/CBSD68/{number}.png"), np.full((60, 60, 3), 128, np.uint8))
    noisy = {level: source.read(chosen(f"CBSD68@{level}", "test").items[1].images["input"]) for level in (15, 25, 50)}
    for level, array in noisy.items():
        assert array.std() == pytest.approx(level, rel=0.05) and array.mean() == pytest.approx(127.5, abs=2)
    assert np.array_equal(noisy[25], source.read(chosen("CBSD68@25", "test").items[1].images["input"]))
    for other in (chosen("CBSD68@25", "test").items[0], chosen("CBSD68@25", "test", "--seed", "2").items[1]):
        assert not np.array_equal(noisy[25], source.read(other.images["input"]))
    for name, words in (("CBSD68", "name a noise level, as in CBSD68@25"), ("CBSD68@x", "is a whole number on the 0-255 scale")):
        with pytest.raises(UserError, match=words):
            chosen(name, "test")


@pytest.mark.parametrize("name, index, seed", [("CBSD68", 0, 1), ("CBSD68", 1, 1), ("Kodak24", 1, 7)])
def test_float_noise(place, name, index, seed):
    """NAME@50f is photo + noise, computed here anew: neither clipped nor rounded; NAME@50 is the same noise in 8 bits."""
    for number in range(2):
        save(Path(f"dataset/{name}/{number}.png"), photo(60, 60, number) // 8 * 9)
    item, in_8_bits = (chosen(f"{name}@50{ending}", "test", "--seed", str(seed)).items[index] for ending in ("f", ""))
    normal = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode()), index])).standard_normal((60, 60, 3))
    expected = photo(60, 60, index) // 8 * 9 + 50 * normal
    sample = Images([item], ("image",))[0]
    assert expected.min() < -10 and expected.max() > 265 and sample.input.dtype == torch.float32
    assert np.allclose(255 * sample.input.numpy().transpose(1, 2, 0), expected, atol=1e-3)
    assert np.array_equal(source.read(in_8_bits.images["input"]), expected.clip(0, 255).astype(np.uint8))
    assert sample.targets["image"].min() >= 0 and np.array_equal(source.read(item.images["image"]), photo(60, 60, index) // 8 * 9)


def test_a_range_of_float_noise(place):
    """In training each crop draws its level, here from 0-40, and nothing is clipped or rounded; a test uses level 25."""
    save(Path("dataset/BSD400/flat.png"), np.zeros((64, 64, 3), np.uint8))
    images = Images(chosen("BSD400@0-40f", "train", "--data_range", "1-9").items, ("image",), seed=3, patch_size=64)
    drawn = [255 * images[(epoch, 0, 0)].input.numpy() for epoch in range(40)]
    levels = [round(float(noise.std())) for noise in drawn]
    assert min(levels) < 8 and max(levels) > 32 and len(set(levels)) > 10
    noise = max(drawn, key=np.std)
    assert noise.min() < -60 and abs(noise.mean()) < 2 and np.any(noise % 1 > 0.01)
    assert np.array_equal(drawn[5], 255 * images[(5, 0, 0)].input.numpy())
    test = Images(chosen("BSD400@0-40f", "test").items, ("image",))[0]
    assert float(255 * test.input.std()) == pytest.approx(25, rel=0.03)


def test_a_result_states_its_kind_of_noise(run, pairs):
    save(Path("dataset/CBSD68/1.png"), photo(24, 24, 1))
    status, text = run("--data_train", "set", "--data_test", "CBSD68@25+CBSD68@25f+set", "--save", "x", *TINY)
    assert status == 0, text
    results = json.loads(Path("experiment/x/metrics.json").read_text())
    for name, kind in (("CBSD68@25", "noise clipped and truncated to 8 bits"), ("CBSD68@25f", "float noise, neither clipped nor rounded")):
        assert results[name]["noise"] == kind and kind in Path("experiment/x/report.html").read_text()
        assert any(line.startswith(f"{name}: ") and "[protocol" in line and line.endswith(f"whole images; {kind}]")
                   for line in Path("experiment/x/log.txt").read_text().splitlines())
    assert "noise" not in results["set"]
    assert "NAME@25f" in run("--list")[1]


def test_float_noise_and_methods_that_read_8_bits(place, fails):
    save(Path("dataset/CBSD68/1.png"), photo(24, 24, 1))
    assert "'CBSD68@25f': this method trains on the images themselves and reads 8 bits; use CBSD68@25" in fails(
        "--model", "rain2avoid", "--data_train", "CBSD68@25f", "--save", "x")
    for name in ("CBSD68@f", "CBSD68@25F", "CBSD68@25ff", "CBSD68@0f-55f", "CBSD68@2.5f"):
        assert "is a whole number on the 0-255 scale" in fails("--data_train", name, "--save", "x")


def test_a_count_that_differs(place):
    save(Path("dataset/CBSD68/1.png"), photo(20, 20, 1))
    assert chosen("CBSD68@15", "test").subset == "1 images where 68 are published"
    assert "warning: CBSD68 (test) has 1 images where 68 are published" in process.log().waiting[0]


def write_files() -> None:
    for name in ("a", "b"):
        save(Path(f"base/{name}.png"), photo(20, 20, 1))
        save(Path(f"base/{name}_rain.png"), veiled(photo(20, 20, 1)))


@pytest.mark.parametrize("mark", [",", " | "])
@pytest.mark.parametrize("heading", ["", "target,degraded\n"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_csv_lists(place, mark, heading, slash):
    write_files()
    Path("l.csv").write_text(heading + "".join(f"{slash}{n}.png{mark}{slash}{n}_rain.png\n" for n in "ab"))
    items = chosen("l.csv", "test", "--train_dir", "base").items
    assert [(i.images["image"], i.images["input"]) for i in items] == [(Path(f"base/{n}.png"), Path(f"base/{n}_rain.png")) for n in "ab"]


def test_json_lists(place, run):
    write_files()
    Path("meta").mkdir()
    pairs = [["base/a.png", "base/a_rain.png"], [str(place / "base/b.png"), "base/b_rain.png"]]       # relative and absolute
    Path("meta/rain.json").write_text(json.dumps(pairs))
    status, text = run("--data_train", "meta/rain.json", "--loss", "1*L1", "--save", "x", *TINY, "--save_results")
    assert status == 0, text
    assert [path.name for path in Path("experiment/x/results-meta_rain.json").iterdir()] == ["b_rain.png"]


@pytest.mark.parametrize("name, content, words", [
    ("l.json", "{", "l.json is not valid JSON"), ("l.json", '{"a": 1}', "l.json is not a list of pairs"),
    ("l.json", '[["a"]]', "is not a list of pairs"),
    ("l.json", "[]", "holds no pair"), ("l.json", '[["base/a.png", "no.png"]]', "1 files of the list l.json are missing: no.png"),
    ("l.csv", "a.png,a_rain.png\nb.png\n", "l.csv, line 2: 'b.png' is not of the form clean,degraded"),
    ("none.csv", "", "cannot read the list none.csv")])
def test_broken_lists(place, name, content, words):
    write_files()
    Path(name.replace("none", "other")).write_text(content)
    with pytest.raises(UserError, match=words):
        chosen(name, "test", "--train_dir", "base")


def test_all_weathers_in_one_command(run, pairs):
    """--data_test CBSD68@15+CBSD68@50+Rain100L+SOTS_outdoor: each set is measured by its own task and has one entry."""
    save(Path("dataset/CBSD68/1.png"), photo(24, 24, 1))
    save(Path("dataset/Rain100L/input/1.png"), veiled(photo(24, 24, 2)))
    save(Path("dataset/Rain100L/target/1.png"), photo(24, 24, 2))
    save(Path("dataset/SOTS_outdoor/hazy/0001_1_1.jpg"), veiled(photo(24, 24, 3)))
    save(Path("dataset/SOTS_outdoor/gt/0001.png"), photo(24, 24, 3))
    sets = "CBSD68@15+CBSD68@50+Rain100L+SOTS_outdoor"
    assert run("--data_train", "set", "--data_test", sets, "--save", "x", *TINY, "--protocol", "dsrir")[0] == 0
    results = json.loads(Path("experiment/x/metrics.json").read_text())
    assert {name: result["channel"] for name, result in results.items()} == {
        "CBSD68@15": "rgb", "CBSD68@50": "rgb", "Rain100L": "y", "SOTS_outdoor": "rgb"}
    assert results["CBSD68@15"]["input_psnr"] > results["CBSD68@50"]["input_psnr"] + 8
    assert results["Rain100L"]["subset"] == "1 images where 100 are published"


def test_names_that_do_not_fit_are_shown(place):
    """The folders are right and the names are not: the message shows two names, what they need and what there is."""
    for number in range(1, 5):
        save(Path(f"dataset/Rain100H/rain/a-{number}.png"), photo(20, 20, 1))
        save(Path(f"dataset/Rain100H/norain/b-{number}.png"), photo(20, 20, 1))
    with pytest.raises(UserError) as error:
        chosen("Rain100H", "test")
    assert str(error.value) == (
        "4 of 4 images in dataset/Rain100H/rain have no partner in dataset/Rain100H/norain: a-1.png, a-2.png, a-3.png, a-4.png; "
        "by their names a-1.png needs a-1.png and a-2.png needs a-2.png (or another image format), but that folder holds b-1.png, "
        "b-2.png and 2 more")


@pytest.mark.parametrize("folder", ["", "/input"])
def test_a_set_without_truth(place, folder):
    """Images without clean ones, as RNI15: the message names the command that restores them, and the command works."""
    save(Path(f"dataset/RNI15{folder}/1.png"), photo(20, 20, 1))
    hint = f"; to restore images without clean ones: --test_only --dir_demo dataset/RNI15{folder} --data_test Demo --save_results"
    with pytest.raises(UserError) as error:
        chosen("RNI15", "test")
    assert str(error.value).endswith(hint)
    flags = hint.partition(": ")[2].split()
    assert [item.images for item in chosen("Demo", "test", *flags).items] == [{"input": Path(f"dataset/RNI15{folder}/1.png")}]
    Path("dataset/RNI15x").mkdir()
    with pytest.raises(UserError, match=r"does not have a known folder layout; it needs [^;]*$"):
        chosen("RNI15x", "test")


def test_a_pattern_that_matches_no_file_is_named(tmp_path):
    """Both folders of a layout exist, so the message is about the pattern and not about the folders."""
    for folder in ("wet", "dry"):
        save(tmp_path / "MyRain" / folder / "street.png", photo(20, 20, 1))
    with pytest.raises(UserError, match=r"the pattern '\(\\d\+\)_rain' of the data set MyRain matches no file name .*wet: street\.png$"):
        paired.find(tmp_path / "MyRain", "test", (paired.Layout("wet", "dry", pattern=r"(\d+)_rain"),))
