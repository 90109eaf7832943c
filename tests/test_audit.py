"""The leak audit before a training: a warning with names, and --exclude_leaks."""

import numpy as np
import pytest
from skimage import data as photos

from data import audit
from tests.conftest import TINY, save, veiled


@pytest.fixture
def leaky(place):
    """Three training pairs, one of them a mirrored crop of the only test image; real photos."""
    scenes = {"astronaut": photos.astronaut(), "coffee": photos.coffee(), "cat": photos.chelsea()[30:290, 400:20:-1]}
    for name, clean in scenes.items():
        save(place / f"dataset/mine/train/target/{name}.png", np.ascontiguousarray(clean))
        save(place / f"dataset/mine/train/input/{name}.png", veiled(clean))
    save(place / "dataset/mine/test/target/chelsea.png", photos.chelsea())
    save(place / "dataset/mine/test/input/chelsea.png", veiled(photos.chelsea()))
    return place / "dataset" / "mine"


def test_a_leak_is_named_and_can_be_left_out(run, leaky, monkeypatch):
    flags = ["--data_train", "mine", "--loss", "1*L1", *TINY]
    status, text = run(*flags, "--save", "a")
    assert status == 0
    assert ("warning: 1 of 3 training images show a scene of a test set: cat (mine chelsea); --exclude_leaks leaves them out") in text
    assert "3 training images of mine" in text
    status, text = run(*flags, "--save", "b", "--exclude_leaks")
    assert status == 0 and "they are left out" in text and "2 training images of mine" in text
    status, text = run(*flags, "--save", "c", "--no-audit")
    assert status == 0 and "warning" not in text
    monkeypatch.setattr(audit, "SEARCH_LIMIT", 2)
    status, text = run(*flags, "--save", "d")
    assert status == 0 and "3 training images are not searched" in text and "warning" not in text


def test_nothing_left_is_an_error(fails, leaky):
    for name in ("astronaut", "coffee"):
        for part in ("input", "target"):
            (leaky / "train" / part / f"{name}.png").unlink()
    assert "every training image shows a scene of a test set" in fails("--data_train", "mine", "--loss", "1*L1", *TINY, "--exclude_leaks")
