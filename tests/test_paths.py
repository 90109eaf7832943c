"""Paths that the system refuses: names that are too long, folders without permission, a full disk for the caches."""
import os
from pathlib import Path

import numpy as np
import pytest

import option
from contract import Item
from data import cache, leaks, runs
from runtime import process
from tests.conftest import TINY, make_pairs, photo, save
from tests.test_folders import FLAGS, RESULTS, network_file
from tests.test_leaks import scene
from tool import compare, export, guarded, make_lists, measure, restore, verify

LONG = "x" * 300
__all__ = ["network_file"]


def full(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("flags", [("--pre_train", f"{LONG}.pt", "--test_only"), ("--data_train", LONG), ("--dir_data", LONG),
                                   ("--data_test", "Demo", "--dir_demo", LONG)])
def test_names_that_are_too_long(fails, pairs, flags):
    sentence = fails("--data_train", "set", "--save", "x", *TINY, *flags)
    assert "File name too long" in sentence
    assert len(sentence) < 250
    assert not Path("experiment").exists()


def test_a_folder_without_permission(fails, pairs, monkeypatch):
    real = os.scandir

    def scandir(path="."):
        if Path(path).name == "input":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)
    monkeypatch.setattr(os, "scandir", scandir)
    assert "dataset/set/input: Permission denied; give this user access to it" in fails("--data_train", "set", "--save", "x", *TINY)
    assert not Path("experiment").exists()


def test_a_result_whose_name_is_too_long(fails, network_file):
    """The other images of the folder are restored."""
    save(Path(f"photos/{'x' * 251}.jpg"), photo(20, 20, 1))
    sentence = fails(*FLAGS, "--format", "webp")
    assert "1 of 4 images could not be restored; the other 3 were restored: xxx" in sentence
    assert "a file name has at most 255 bytes; rename the image" in sentence
    assert len(list(RESULTS.iterdir())) == 3


def test_a_full_cache_disk(place, monkeypatch):
    """Images are decoded each time, and what was written of the training set is removed, so that the training has this space."""
    make_pairs(place / "dataset" / "set")
    real, saved = np.save, []

    def save_two(*arguments, **named):
        saved.append(1)
        real(*arguments, **named) if len(saved) < 5 else full()
    monkeypatch.setattr(np, "save", save_two)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    job = runs(option.parse(["--data_train", "set", "--n_threads", "0", "--no-audit", "--loss", "1*L1"]))[0]
    assert "cannot be written (No space left on device); images are decoded each time" in process.log().waiting[-1]
    assert [item.name for item in job.test["set"].items] == ["03"]
    assert len(saved) >= 5
    assert {path.name[:6] for path in Path("dataset/bin").rglob("*.npy")} == {"03.png"}      # the test image was cached before


def test_a_cache_that_was_whole_stays(place, monkeypatch):
    root = make_pairs(place / "dataset" / "set", 1)
    folder, old = place / "dataset" / "bin" / "1", [root / "input" / "00.png"]
    kept = cache.fill(folder, place / "dataset", old)
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        cache.fill(folder, place / "dataset", [*old, root / "target" / "00.png"])
    assert Path(kept[str(old[0])]).is_file()


def test_a_full_disk_of_fingerprints(place, monkeypatch):
    """The leak audit finds the same leaks without its cache."""
    items = [Item(name, {"image": save(Path(f"{name}.png"), scene(1))}) for name in ("a", "b")]
    monkeypatch.setattr(np, "save", full)
    found = leaks.find(items[:1], items[1:], place)
    assert [(leak.train.name, leak.test.name) for leak in found] == [("a", "b")]
    assert not list(place.glob("*.npy"))


@pytest.mark.parametrize("tool, flags", [
    (restore, ("photos/a.png", "-o", "FILE/x.png")), (restore, ("photos/a.png", "-o", "FILE")),
    (restore, ("photos", "-o", "FILE/x")),
    (restore, ("photos", "-o", "FILE")), (compare, ("a.csv", "b.csv", "--output", "FILE/x")),
    (compare, ("a.csv", "b.csv", "--output", "FILE")),
    (export, ("w.pt", "--onnx", "--output", "FILE/x.onnx")), (export, ("w.pt", "--safetensors", "--card", "--output", "FILE/x/y")),
    (make_lists, ("--dir_data", "dataset", "--out", "FILE/x")), (make_lists, ("--dir_data", "dataset", "--out", "FILE")),
    (measure, ("--input", "photos", "--target", "photos", "--json", "FILE/x.json")),
    (measure, ("--input", "photos", "--target", "photos", "--csv", "photos")),
    (verify, ("--dir_data", "dataset", "--manifest", "FILE/x"))])
def test_a_place_that_cannot_be_written(place, capsys, tool, flags):
    """A place below a file, or a file where a folder is needed, is one sentence and status 2, before anything is computed."""
    save(Path("photos/a.png"), photo(20, 20, 1))
    for name in "ab":
        Path(f"{name}.csv").write_text("protocol,image,psnr\ndefault,1,20\n")
    Path("dataset/BSD400").mkdir(parents=True)
    save(Path("dataset/BSD400/1.png"), photo(20, 20, 1))
    Path("FILE").write_text("mine")
    status = guarded("tool", lambda: tool.run(list(flags)))
    sentence = capsys.readouterr().err
    assert status == 2 and sentence.count("\n") == 1, sentence
    assert "is not a folder; name another place with -" in sentence or " is needed; name another place with -" in sentence
    assert Path("FILE").read_text() == "mine"


def test_an_experiment_below_a_file(fails, place):
    Path("experiment").mkdir()
    Path("experiment/a").write_text("mine")
    assert "experiment/a is not a folder; name another place with --save" in fails("--data_train", "DemoSnow", "--save", "a/b", "--cpu")
