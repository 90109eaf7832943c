"""Training and restoring in one process need nothing that only Linux or POSIX has."""
import json
import os
import subprocess
from pathlib import Path

import pytest

from runtime import files, memory
from tests.conftest import REPO, TINY, make_pairs, python

FOREIGN = python("-m", "tests.foreign")


@pytest.fixture
def sets(place, monkeypatch) -> Path:
    make_pairs(place / "dataset" / "set", 3)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return place


def foreign(*flags: str) -> str:
    result = subprocess.run([*FOREIGN, *flags], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


@pytest.mark.slow
def test_a_network_is_trained_and_restores_photos(sets):
    """With a cache, a loading process, the state, its resumption, and a folder of photos whose memory is unknown."""
    train = ("--data_train", "set", "--save", "x", *TINY, "--n_threads", "1", "--no-audit", "--loss", "1*L1")
    foreign(*train)
    assert "is finished" in foreign(*train)
    assert "psnr" in json.loads(Path("experiment/x/metrics.json").read_text())["set"]
    foreign("--test_only", "--pre_train", "experiment/x/model/model_best.pt", "--data_test", "Demo", "--dir_demo", "dataset/set/input",
            "--save", "photos", "--save_results", "--cpu", "--n_threads", "1")
    assert len(list(Path("experiment/photos/results-input").glob("*.png"))) == 3


@pytest.mark.slow
def test_a_lock_is_held_and_waited_for(sets):
    """The second process is told who holds the lock, and gets it after the first has ended."""
    code = ("import pathlib, sys, torch; from tests.foreign import become_foreign; become_foreign(); from runtime import files\n"
            "with files.locked(pathlib.Path('lock'), lambda holder: print('waits for', holder, flush=True)):\n"
            "    print('held', flush=True); sys.stdin.read()")

    def start() -> subprocess.Popen:
        return subprocess.Popen(python("-c", code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    first = start()
    assert first.stdout.readline() == "held\n"
    second = start()
    assert second.stdout.readline().startswith(f"waits for process {first.pid} on ")
    first.stdin.close()
    assert second.stdout.readline() == "held\n"
    second.stdin.close()
    assert (first.wait(), second.wait()) == (0, 0) and Path("lock").read_text() == ""


def test_unknown_memory_is_none(monkeypatch):
    monkeypatch.setattr(memory, "resource", None)
    for name in ("PROCESS", "GROUPS", "MEMORY"):
        monkeypatch.setattr(memory, name, Path("no such folder"))
    monkeypatch.setattr(memory.ctypes, "CDLL", None)              # ctypes.CDLL(None) is a TypeError on Windows, as this is
    assert memory.available() is None and memory.available(2) is None and memory.per_pixel(lambda x: x) is None


def test_a_folder_that_cannot_be_opened_is_not_synced(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr(os, "open", refuse)
    files.sync_folder(tmp_path)
