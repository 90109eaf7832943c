"""Shared fixtures: generated small data sets, runs of the command line, and real data if it is available."""
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")             # also for processes that tests start: the networks are small, the processes many

import numpy as np
import pytest
import torch
from PIL import Image

import main
from tests.stored import unpack

REPO = Path(__file__).parent.parent
TINY = ["--channels", "4", "--epochs", "1", "--test_every", "2", "--batch_size", "2", "--patch_size", "16",
        "--n_threads", "0", "--cpu"]
PATIENCE = 600.0                          # timeout of tests in seconds: enough for a busy machine, below the timeout of a process group
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture
def real_data() -> Path:
    """The folder of real images that UNWEATHER_DATA names; the test is skipped where it is unset."""
    if not os.environ.get("UNWEATHER_DATA"):
        pytest.skip("UNWEATHER_DATA is not set: no real images are available")
    return Path(os.environ["UNWEATHER_DATA"])


@pytest.fixture
def parity(real_data) -> Path:
    """The folder of parity fixtures beside the real data."""
    if not (real_data.parent / "parity").is_dir():
        pytest.skip("no parity fixtures exist beside the folder of UNWEATHER_DATA")
    return real_data.parent / "parity"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(place, capsys):
    """Run a command line in the working folder: run('--flag', …) -> (status, printed text)."""
    def call(*flags: str) -> tuple[int, str]:
        status = main.main([str(flag) for flag in flags])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out + err
    return call


@pytest.fixture
def fails(run):
    """Run a command line that must fail with exit status `status` (default 2) and one sentence; return the sentence."""
    def call(*flags: str, status: int = 2) -> str:
        code, text = run(*flags)
        assert code == status, text
        sentence = text.strip().splitlines()[-1]
        assert sentence.startswith("main.py: error: ")
        return sentence
    return call


@pytest.fixture
def pairs(place) -> Path:
    return make_pairs(place / "dataset" / "set", 4, masks=True)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A folder with the data set 'set' and a finished experiment 'x' trained on it, created once; tests copy it."""
    folder = tmp_path_factory.mktemp("finished")
    make_pairs(folder / "dataset" / "set", 4, masks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main.main(["--data_train", "set", "--save", "x", *TINY]) == 0
    return folder


@pytest.fixture
def trained(place, finished) -> Path:
    """A finished experiment 'x' on the data set 'set'."""
    shutil.copytree(finished, place, dirs_exist_ok=True)
    return Path("experiment/x")


@pytest.fixture
def trained_here(run, pairs) -> Path:
    """The same, trained in this folder, so that its image cache is valid (copied files are newer than their cache)."""
    assert run("--data_train", "set", "--save", "x", *TINY)[0] == 0
    return Path("experiment/x")


@pytest.fixture
def old(place) -> Path:
    """A model file of SMGARN as version 0.1.0 wrote it."""
    return unpack(REPO / "tests/stored/0.1.0/smgarn.pt.xz", "old.pt")


def photo(height: int, width: int, seed: int) -> np.ndarray:
    """Return a smooth colour image, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(30, 200, (5, 5, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.BICUBIC))


def veiled(clean: np.ndarray) -> np.ndarray:
    """Return the image under a bright veil that is easy to remove."""
    return (0.35 * clean + 150).astype(np.uint8)


def save(path: Path, array: np.ndarray, **options) -> Path:
    """Write an image and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def make_pairs(root: Path, count: int = 4, size: tuple[int, int] = (40, 48), masks: bool = False) -> Path:
    """Write count pairs to root/input and root/target (and root/mask)."""
    for number in range(count):
        clean = photo(*size, number)
        save(root / "target" / f"{number:02}.png", clean)
        save(root / "input" / f"{number:02}.png", veiled(clean))
        if masks:
            save(root / "mask" / f"{number:02}.png", photo(*size, 100 + number))
    return root


def make_div2k(root: Path, count: int = 12, scale: str = "x1") -> Path:
    """Write EDSR's layout with masks; input files of several formats."""
    endings = ("png", "jpg", "tif", "bmp", "webp")
    for number in range(count):
        clean = photo(56, 64, number)
        save(root / "DIV2K_train_HR" / f"{number:04}.png", clean)
        save(root / "DIV2K_train_EDGE" / f"{number:04}.png", photo(56, 64, 100 + number))
        save(root / "DIV2K_train_LR_bicubic" / scale / f"{number:04}.{endings[number % 5]}", veiled(clean))
    return root


def until(ready: Callable[[], object], goes_on: Callable[[], bool] = lambda: True):
    """Return the result of `ready` as soon as it is true; fail after PATIENCE seconds, or at once if `goes_on` is false."""
    end = time.monotonic() + PATIENCE
    while not (found := ready()):
        assert goes_on() and time.monotonic() < end, "the condition that the test waits for did not come true"
        time.sleep(0.02)
    return found


def python(*arguments: str) -> list[str]:
    """Return the command of a Python process in this environment."""
    return [sys.executable, *arguments]
