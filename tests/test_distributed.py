"""Two processes give what one gives, by torchrun with gloo on CPUs."""
import json
import subprocess
from pathlib import Path

import pytest
import torch

import utility
from tests.conftest import REPO, TINY, make_pairs, python


def torchrun(*flags: str) -> subprocess.CompletedProcess:
    command = python("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(REPO / "main.py"), *flags)
    return subprocess.run(command, capture_output=True, text=True, timeout=170)


def single(*flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(python(str(REPO / "main.py"), *flags), capture_output=True, text=True, timeout=170)


@pytest.fixture
def thin(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_two_processes_equal_one(place, thin):
    """Same losses, weights and metrics to 1e-4; the loss leaves the mask's last layer without gradient; 3 test images on 2."""
    make_pairs(place / "dataset" / "set", 6)
    flags = ["--data_train", "set", *TINY, "--batch_size", "4", "--test_every", "4", "--loss", "1*L1", "--split_batch", "2",
             "--ema", "0.5", "--data_range", "1-3/4-6", "--save_results"]
    for save, launch in (("one", single), ("two", torchrun)):
        result = launch(*flags, "--save", save)
        assert result.returncode == 0, result.stderr
    one, two = (utility.read_tensors(f"experiment/{name}/model/model_best.pt")["state"] for name in ("one", "two"))
    assert all(torch.allclose(one[key], two[key], rtol=1e-4, atol=1e-6) for key in one)
    metrics = [json.loads(Path(f"experiment/{name}/metrics.json").read_text())["set"] for name in ("one", "two")]
    assert metrics[0]["count"] == metrics[1]["count"] == 3
    assert metrics[0]["psnr"] == pytest.approx(metrics[1]["psnr"], rel=1e-4)
    assert len(list(Path("experiment/two/results-set").iterdir())) == 3
    logs = [[json.loads(line) for line in Path(f"experiment/{name}/log.jsonl").read_text().splitlines()] for name in ("one", "two")]
    assert [r["event"] for r in logs[0]] == [r["event"] for r in logs[1]]          # only the first process writes
    assert logs[0][0]["losses"]["loss"] == pytest.approx(logs[1][0]["losses"]["loss"], rel=1e-4)


def test_a_batch_that_does_not_divide(place, thin):
    result = torchrun("--data_train", "DemoSnow", *TINY, "--batch_size", "3")
    assert result.returncode != 0
    assert "--batch_size 3 is the total over all processes and must divide by their number, 2" in result.stderr
