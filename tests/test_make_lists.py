"""Tests of tool.make_lists: the training lists of the all-in-one model."""
from pathlib import Path

import numpy as np
import pytest

from data import paired
from data.paired import Layout
from data.sets import DATASETS
from tests.conftest import photo, save, veiled
from tool import guarded, make_lists

LISTS = ("noise", "rain", "haze", "all_in_one")
VERSIONS = ("0.8_0.04", "0.9_0.1", "1_0.2")


@pytest.fixture
def lists(place, capsys):
    """Run the tool: lists('--flag', …) -> (status, what it printed)."""
    def call(*flags: str) -> tuple[int, str]:
        status = guarded("tool.make_lists", lambda: make_lists.run([str(flag) for flag in flags]))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out + err
    return call


def tiny(path: str, number: int = 0, size: tuple[int, int] = (6, 8)) -> None:
    save(Path("dataset") / path, photo(*size, number))


def noise() -> None:
    for number in range(3):
        tiny(f"BSD400/{number}.png", number)
    for number in range(2):
        tiny(f"WED/HR/{number}.bmp", number)


def rain(folder: str = "RainTrainL", count: int = 3) -> None:
    for number in range(1, count + 1):
        tiny(f"{folder}/norain-{number}.png", number)
        save(Path(f"dataset/{folder}/rain-{number}.png"), veiled(photo(6, 8, number)))


def haze(scenes: int = 6, clear: str = "png") -> None:
    for scene in range(1, scenes + 1):
        tiny(f"RESIDE_OTS/clear/{scene:04}.{clear}", scene)
        for version in VERSIONS:
            tiny(f"RESIDE_OTS/hazy/{scene:04}_{version}.jpg", scene)


def read(name: str, place: str = "dataset/train") -> list[str]:
    """Return the lines of a list; the file must end with a line break."""
    text = Path(place, f"train_{name}.csv").read_text()
    assert text.endswith("\n")
    return text.splitlines()


def row(name: str, text: str) -> list[str]:
    """Return the row of a list in the printed table: lines, published lines, state."""
    found, = [line for line in text.splitlines() if line.startswith(f"train_{name}.csv ")]
    return found.split(maxsplit=3)[1:]


def test_all_lists(lists):
    noise()
    rain()
    haze()
    status, text = lists("--lines", "5")
    assert status == 0, text
    photos = ["BSD400/0.png", "BSD400/1.png", "BSD400/2.png", "WED/HR/0.bmp", "WED/HR/1.bmp"]
    assert read("noise") == [f"{photo},{photo}" for photo in photos]
    assert read("rain") == [f"RainTrainL/norain-{n}.png,RainTrainL/rain-{n}.png" for n in (1, 2, 3, 1, 2)]
    assert len(read("haze")) == 5 and read("haze") == sorted(read("haze"))
    assert read("all_in_one") == read("noise") + read("rain") + read("haze")
    assert sorted(path.name for path in Path("dataset/train").iterdir()) == sorted(f"train_{name}.csv" for name in LISTS)
    assert [row(name, text) for name in LISTS] == [
        ["5", "5144", "written"], ["5", "5000", "written"], ["5", "5000", "written"], ["15", "15144", "written"]]


def test_lists_read_back(lists, place):
    """A training reads the pairs that were written, also from another output directory, with other layouts and upper-case names."""
    noise()
    rain("Rain100L/Train", 2)
    haze()
    assert lists("--lines", "5", "--dir_data", place / "dataset", "--out", "lists")[0] == 0
    root = place / "dataset"
    found = paired.listed(Path("lists/train_rain.csv"), root)
    assert [(i.images["image"], i.images["input"]) for i in found] == [
        (root / f"Rain100L/Train/norain-{n}.png", root / f"Rain100L/Train/rain-{n}.png") for n in (1, 2, 1, 2, 1)]
    assert len({item.name for item in found}) == 5
    found = paired.listed(Path("lists/train_haze.csv"), root)
    assert len(found) == 5
    for item in found:
        assert item.images["image"].parent.name == "clear" and item.images["input"].parent.name == "hazy"
        assert item.images["input"].stem.startswith(f"{item.images['image'].stem}_")
    found = paired.listed(Path("lists/train_all_in_one.csv"), root)
    assert len(found) == 15 and [item.images["input"] == item.images["image"] for item in found] == [True] * 5 + [False] * 10


def test_haze_is_drawn_by_the_seed(lists):
    """One version of each scene is listed; the same seed gives the same list, another seed gives other versions and scenes."""
    haze(20)
    for place, flags in {"a": (), "b": (), "c": ("--seed", "2"), "d": ("--lines", "7"), "e": ("--lines", "7", "--seed", "2")}.items():
        assert lists("--out", place, *flags)[0] == 0
    whole = read("haze", "a")
    clear, hazy = zip(*(line.split(",") for line in whole))
    assert list(clear) == [f"RESIDE_OTS/clear/{scene:04}.png" for scene in range(1, 21)]
    assert {Path(name).stem.partition("_")[2] for name in hazy} == set(VERSIONS)
    assert read("haze", "b") == whole != read("haze", "c")
    few, others = ([line.split(",")[0] for line in read("haze", place)] for place in "de")
    assert len(set(few)) == 7 and few == sorted(few) and set(few) < set(clear) and few != others


def test_clear_images_under_hazy_names(lists):
    """A copy with one clear image for each hazy image still gives one line for each scene."""
    for version in VERSIONS:
        for kind in ("hazy", "clear"):
            tiny(f"RESIDE_OTS/{kind}/0001_{version}.png", 1)
    assert lists()[0] == 0
    line, = read("haze")
    clear, hazy = line.split(",")
    assert Path(clear).name == Path(hazy).name


def test_missing_sets(lists):
    noise()
    status, text = lists("--out", "one")
    assert status == 0 and [path.name for path in Path("one").iterdir()] == ["train_noise.csv"]
    assert row("rain", text) == [
        "0", "5000", "not written: dataset/RainTrainL is missing and the training part dataset/Rain100L/train is missing"]
    assert row("haze", text) == ["0", "5000", "not written: dataset/RESIDE_OTS is missing"]
    assert row("all_in_one", text) == ["0", "15144", "not written: it needs train_rain.csv and train_haze.csv"]


def test_one_of_the_two_noise_sets_is_enough(lists):
    tiny("BSD400/a.png")
    rain()
    haze()
    status, text = lists("--lines", "2")
    assert status == 0 and read("noise") == ["BSD400/a.png,BSD400/a.png"] and len(read("all_in_one")) == 5
    assert row("noise", text)[2] == row("all_in_one", text)[2] == "written; dataset/WED is missing"


def test_a_test_part_is_no_training_part(lists):
    """The test pairs of Rain100L are not listed, whether they are in test/, in the folder of the set, or next to an empty train/."""
    rain("Rain100L/test")
    tiny("BSD400/a.png")
    assert "the training part dataset/Rain100L/train" in row("rain", lists("--out", "a")[1])[2]
    rain("Rain100L")
    assert "the training part dataset/Rain100L/train" in row("rain", lists("--out", "b")[1])[2]
    Path("dataset/Rain100L/train").mkdir()
    status, text = lists("--out", "c")
    assert status == 2 and "the training part of dataset/Rain100L holds no pairs" in text and not Path("c").exists()


def test_missing_folder_and_empty_folder(lists):
    status, text = lists()
    assert status == 2 and "there is no folder dataset" in text
    Path("dataset").mkdir()
    status, text = lists()
    assert status == 2 and text.startswith("tool.make_lists: error: no list can be written: dataset/BSD400 and dataset/WED are missing; ")
    assert len(text.splitlines()) == 1 and not Path("dataset/train").exists()


def test_lists_are_not_overwritten(lists):
    """An existing list stays and no other list is written; --force writes all; a list that cannot be written again is reported as old."""
    noise()
    rain()
    Path("dataset/train").mkdir()
    for name in ("rain", "haze"):
        Path(f"dataset/train/train_{name}.csv").write_text("mine\n")
    status, text = lists()
    assert status == 2 and "dataset/train/train_rain.csv would be overwritten; use --force" in text and "haze" not in text
    assert read("rain") == ["mine"] and not Path("dataset/train/train_noise.csv").exists()
    status, text = lists("--force", "--lines", "4")
    assert status == 0 and len(read("rain")) == 4 and len(read("noise")) == 5 and read("haze") == ["mine"]
    assert row("haze", text)[2] == "not written: dataset/RESIDE_OTS is missing; an older list exists and was not changed"


def larger_clear_image() -> None:
    haze(2)
    tiny("RESIDE_OTS/clear/0002.png", 2, (8, 10))


def halves(monkeypatch) -> None:
    monkeypatch.setitem(DATASETS, "RainTrainL", DATASETS["RainTrainL"]._replace(layouts=(Layout(".", ".", view="sides"),)))
    save(Path("dataset/RainTrainL/1.jpg"), np.hstack([photo(6, 8, 1)] * 2))


@pytest.mark.parametrize("make, words", [
    (lambda _: larger_clear_image(), "hazy/0002_"),
    (lambda _: larger_clear_image(), "crop the larger image to its centre"),
    (halves, "dataset/RainTrainL/1.jpg is a part of a file, but a list can name only whole files"),
    (lambda _: tiny("WED/a,b.png"), "a list cannot contain the name 'WED/a,b.png'"),
    (lambda _: (rain(), tiny("RainTrainL/rain-9.png")), "1 of 4 images in dataset/RainTrainL have no partner in dataset/RainTrainL: rain"),
    (lambda _: Path("dataset/WED").mkdir(), "dataset/WED does not have a known folder layout"),
])
def test_what_cannot_be_listed(lists, monkeypatch, make, words):
    """A data set that exists and cannot be listed is reported in one sentence, and no file is written."""
    tiny("BSD400/a.png")
    make(monkeypatch)
    status, text = lists()
    assert status == 2 and words in text and not Path("dataset/train").exists()


@pytest.mark.parametrize("flags", [("--lines", "0"), ("--seed", "-1"), ("--dir_dat", "x")])
def test_flags_are_checked(lists, flags):
    status, text = lists(*flags)
    assert status == 2 and flags[0] in text
