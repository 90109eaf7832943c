"""Tests of --logger: TensorBoard and Weights & Biases receive the numbers of log.jsonl at the same steps."""
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from report import plots, trackers
from tests.conftest import TINY

TWO = [*TINY, "--print_every", "1", "--epochs", "2"]


def records(name: str) -> list[dict]:
    return [json.loads(line) for line in Path(f"experiment/{name}/log.jsonl").read_text().splitlines()]


def expected(name: str) -> dict[tuple[str, int], float]:
    """Return the numbers in log.jsonl of a training of two epochs with two steps each: {(name, step): value}."""
    found = {}
    for record in records(name):
        epoch = record.get("epoch") or 2
        step = 2 * (epoch - 1) + record["step"] if record["event"] == "train" else 2 * epoch
        found |= {(key, step): value for key, value in trackers.scalars(record["event"], record).items()}
    return found


class Run:
    """A replacement for a run of wandb."""

    def __init__(self, **settings):
        self.settings, self.rows, self.ended = settings, [], False

    def log(self, row: dict) -> None:
        self.rows.append(row)

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        assert name in ("step", "*") and step_metric in (None, "step")

    def finish(self) -> None:
        self.ended = True


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Do not draw curves, which would take most of the time."""
    monkeypatch.setattr(plots, "curves", lambda _: None)


@pytest.fixture
def wandb(monkeypatch) -> list[Run]:
    """The runs that a replacement for wandb started."""
    runs: list[Run] = []

    def init(**settings) -> Run:
        runs.append(Run(**settings))
        return runs[-1]
    package = types.SimpleNamespace(init=init, login=lambda **_: True, Image=lambda picture, caption: (picture, caption))
    monkeypatch.setitem(sys.modules, "wandb", package)
    return runs


def events(name: str):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator",
                                      reason="the extra 'tensorboard' is not installed")
    found = accumulator.EventAccumulator(f"experiment/{name}/tensorboard", size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def test_tensorboard_has_what_the_log_has(run, pairs):
    """Names, steps and values are equal, also for a run that was resumed from an earlier epoch."""
    pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
    flags = ["--data_train", "set", "--save", "x", *TWO, "--logger", "tensorboard", "--save_models"]
    assert run(*flags)[0] == 0
    for resumed in (False, True):
        if resumed:
            assert run(*flags, "--resume", "1")[0] == 0
        found = events("x")
        values = {(name, event.step): event.value for name in found.Tags()["scalars"] for event in found.Scalars(name)}
        assert values == pytest.approx(expected("x"))
        assert {("train/loss", 1), ("train/L1", 4), ("epoch/lr", 2), ("test/set/psnr", 2), ("final/set/ssim", 4)} <= set(values)
        steps = [event.step for event in found.Scalars("train/loss")]
        assert steps == [1, 2, 3, 4]
        assert {name: [event.step for event in found.Images(name)] for name in found.Tags()["images"]} == {
            "test/set/example": [2, 4], "final/set/example": [4]}
        assert (found.Images("final/set/example")[0].width, found.Images("final/set/example")[0].height) == (3 * 48, 40)


def test_wandb_gets_the_same(run, pairs, wandb):
    flags = ["--data_train", "set", "--save", "x", *TWO, "--logger", "wandb", "--save_models"]
    assert run(*flags)[0] == 0
    [first] = wandb
    assert first.ended and first.settings["name"] == "x" and first.settings["config"]["data_train"] == "set"
    values = {(key, row["step"]): value for row in first.rows for key, value in row.items() if isinstance(value, float)}
    assert values == expected("x")
    picture, caption = next(row["final/set/example"] for row in first.rows if "final/set/example" in row)
    assert picture.shape == (40, 3 * 48, 3) and caption == "input | result | truth"
    assert run(*flags, "--resume", "1")[0] == 0
    assert wandb[1].settings["id"] == first.settings["id"] and min(row["step"] for row in wandb[1].rows) == 3
    assert run(*flags, "--reset")[0] == 0
    assert wandb[2].settings["id"] != first.settings["id"]


def test_a_test_without_truth(run, trained, wandb):
    assert run("--test_only", "--pre_train", "experiment/x/model/model_best.pt", "--dir_demo", "dataset/set/input", "--data_test", "Demo",
               "--save", "t", "--logger", "wandb", "--cpu", "--n_threads", "0")[0] == 0
    assert [(set(row), row["step"]) for row in wandb[0].rows if len(row) > 1] == [({"final/input/example", "step"}, 0)]


def test_off_by_default_and_no_other_experiment(run, pairs, wandb):
    flags = ["--data_train", "set", "--save", "x", *TINY]
    assert run(*flags)[0] == 0 and wandb == [] and not Path("experiment/x/tensorboard").exists()
    assert "is finished" in run(*flags, "--logger", "wandb")[1]          # the same experiment, tested again


@pytest.mark.parametrize("kind, module", [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_missing_package_is_reported_first(fails, pairs, monkeypatch, kind, module):
    monkeypatch.setitem(sys.modules, module, None)
    sentence = fails("--data_train", "set", "--save", "x", *TINY, "--logger", kind)
    assert sentence.endswith(f"--logger {kind} needs the package {kind}: pip install {kind}") and not Path("experiment/x").exists()


def test_a_missing_login_is_reported_first(fails, pairs, wandb, monkeypatch):
    monkeypatch.setattr(sys.modules["wandb"], "login", lambda **_: False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    sentence = fails("--data_train", "set", "--save", "x", *TINY, "--logger", "wandb")
    assert sentence.endswith("run `wandb login` or set WANDB_MODE=offline") and not Path("experiment/x").exists()


def test_wandb_that_cannot_start_is_a_sentence(fails, pairs, wandb, monkeypatch):
    def init(**_):
        raise RuntimeError("no key\nand more")
    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    assert "--logger wandb: no key; try `wandb login`" in fails("--data_train", "set", "--save", "x", *TINY, "--logger", "wandb", status=1)


def test_steps_count_through_the_stages():
    plan = [(2, 10), (0, 7), (1, 3)]
    assert [trackers.step_of(plan, *each) for each in ((1, 0), (1, 4), (2, 10), (3, 2), (4, 0))] == [0, 4, 20, 22, 23]
    assert trackers.step_of([], 1, 0) == 0


def test_large_pictures_are_made_small():
    part = torch.rand(1, 3, 1024, 512)
    found = trackers.side_by_side([part, part])
    assert found.shape == (512, 512, 3) and found.dtype == np.uint8


def test_only_the_first_process_follows(wandb, monkeypatch):
    monkeypatch.setattr(trackers.process, "rank", lambda: 1)
    with trackers.following(types.SimpleNamespace(logger="wandb"), Path("experiment/x"), None):
        assert wandb == []
