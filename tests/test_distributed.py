"""Two processes of torchrun (gloo, CPU) give the same results as one process."""
import json
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from model import build, weights
from runtime import files
from tests.conftest import REPO, TINY, make_pairs, python
from tests.test_systems import KD, PLAIN


def torchrun(*flags: str) -> subprocess.CompletedProcess:
    command = python("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(REPO / "main.py"), *flags)
    return subprocess.run(command, capture_output=True, text=True, timeout=170)


def single(*flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(python(str(REPO / "main.py"), *flags), capture_output=True, text=True, timeout=170)


@pytest.fixture
def thin(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_two_processes_equal_one(place, thin):
    """Losses, weights and metrics agree to 1e-4, with a layer that gets no gradient, and 3 test images on 2 processes."""
    make_pairs(place / "dataset" / "set", 6)
    flags = ["--data_train", "set", *TINY, "--batch_size", "4", "--test_every", "4", "--loss", "1*L1", "--split_batch", "2",
             "--ema", "0.5", "--data_range", "1-3/4-6", "--save_results"]
    for save, launch in (("one", single), ("two", torchrun)):
        result = launch(*flags, "--save", save)
        assert result.returncode == 0, result.stderr
        assert "UserWarning" not in result.stderr
    one, two = (files.read_tensors(f"experiment/{name}/model/model_best.pt")["state"] for name in ("one", "two"))
    assert all(torch.allclose(one[key], two[key], rtol=1e-4, atol=1e-6) for key in one)
    metrics = [json.loads(Path(f"experiment/{name}/metrics.json").read_text())["set"] for name in ("one", "two")]
    assert metrics[0]["count"] == metrics[1]["count"] == 3
    assert metrics[0]["psnr"] == pytest.approx(metrics[1]["psnr"], rel=1e-4)
    assert len(list(Path("experiment/two/results-set").iterdir())) == 3
    cards = [json.loads(Path(f"experiment/{name}/cards-set.json").read_text())["cards"] for name in ("one", "two")]
    assert [card["name"] for card in cards[0]] == [card["name"] for card in cards[1]] == ["03", "04", "05"]
    logs = [[json.loads(line) for line in Path(f"experiment/{name}/log.jsonl").read_text().splitlines()] for name in ("one", "two")]
    assert [r["event"] for r in logs[0]] == [r["event"] for r in logs[1]]          # only the first process writes
    assert logs[0][0]["losses"]["loss"] == pytest.approx(logs[1][0]["losses"]["loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["sapnet", "dsrir", "two_stage_kd", "unet", "restormer", "rain2avoid"])
def test_each_system(place, thin, model):
    """For every system, all stages (also the distillation from teachers) give the weights of one process."""
    sets = ["A", "B"] if model == "two_stage_kd" else ["A"]
    for name in sets:
        make_pairs(place / "dataset" / name, 4)
    flags = ["--model", model, "--data_train", "+".join(sets), "--data_test", "A", "--epochs", "2", "--test_every", "2", "--batch_size",
             "4", "--n_threads", "0", "--cpu", "--patch_size", "32", "--lr", "1e-3"]
    if model == "two_stage_kd":
        for name in sets:
            args = Namespace(model=model, channels=4, blocks=1, rgb_range=255.0, n_colors=3)
            files.write_tensors(Path(f"{name}.pt"), weights.model_content(build(args), args, {}))
        flags += [*KD, "--teachers", "A.pt", "B.pt"]
    elif model == "rain2avoid":
        flags += ["--strategy", "multiple", "--channels", "4", "--sdr_num", "4"]
    else:
        flags += PLAIN[model]
    if model in ("unet", "rain2avoid"):                   # Adam's first steps amplify gradients that are only rounding errors
        flags += ["--optimizer", "SGD"]
    for save, launch in (("one", single), ("two", torchrun)):
        result = launch(*flags, "--save", save)
        assert result.returncode == 0, result.stderr
    one, two = (files.read_tensors(f"experiment/{name}/model/model_latest.pt")["state"] for name in ("one", "two"))
    assert all(torch.allclose(one[key], two[key], rtol=1e-3, atol=2e-5) for key in one)
    logs = [[json.loads(line)["losses"] for line in Path(f"experiment/{name}/log.jsonl").read_text().splitlines() if '"epoch"' in line
             and "losses" in line] for name in ("one", "two")]
    cards = [len(json.loads(Path(f"experiment/{name}/cards-A.json").read_text())["cards"]) for name in ("one", "two")]
    assert cards[0] == cards[1]
    assert len(logs[0]) == 2 and logs[0] == [pytest.approx(losses, rel=1e-4) for losses in logs[1]]


def test_a_batch_that_does_not_divide(place, thin):
    result = torchrun("--data_train", "DemoSnow", *TINY, "--batch_size", "3")
    assert result.returncode != 0
    assert "--batch_size 3 is the total over all processes and must be divisible by their number, 2" in result.stderr
