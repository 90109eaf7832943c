"""Trainings whose weights are destroyed: what is kept, what is said, and the return to an earlier state."""
from pathlib import Path

import pytest
import torch

import loss
import trainer
from model import detect
from runtime import experiment, files
from tests.conftest import TINY

STATE, BEFORE = (Path("experiment/x/model") / name for name in ("state.pt", "state_before.pt"))
COMMON = ("--data_train", "set", "--save", "x", "--loss", "1*L1", *TINY, "--epochs", "2", "--test_every", "5", "--save_every", "1",
          "--no-report")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(trainer, "MAX_SKIPPED", 3)


def destroy(monkeypatch, steps: set[int]) -> None:
    """Make the losses of some steps, counted over all calls from 1, not finite."""
    real, calls = loss.Loss.forward, []

    def forward(self, prediction, batch):
        total, parts = real(self, prediction, batch)
        if torch.is_grad_enabled():
            calls.append(1)
            if len(calls) in steps:
                total = total * float("nan")
        return total, parts
    monkeypatch.setattr(loss.Loss, "forward", forward)


def after_step(monkeypatch, number: int, change) -> None:
    """Call `change(optimizer, parameter)` after a step of the optimizer, counted from 1, with its first parameter."""
    real, steps = torch.optim.Adam.step, []

    def step(self, *args, **kwargs):
        real(self, *args, **kwargs)
        steps.append(1)
        if len(steps) == number:
            change(self, self.param_groups[0]["params"][0])
    monkeypatch.setattr(torch.optim.Adam, "step", step)


def is_good(path: Path) -> bool:
    return not detect.not_finite(files.read_tensors(path)["network"])


def test_a_good_state_stays(run, fails, pairs, monkeypatch):
    """Weights that a step has destroyed are never saved, at no step, epoch or signal; --resume auto continues from good ones."""
    after_step(monkeypatch, 3, lambda optimizer, parameter: parameter.data.fill_(float("inf")))
    sentence = fails(*COMMON, status=1)
    assert "the weights or the optimizer are not finite any more, in network." in sentence
    assert "the last good state and weights are kept; try --rollback" in sentence
    assert is_good(STATE)
    assert is_good(BEFORE)
    assert files.read_tensors(STATE)["progress"]["steps"] == 2
    status, text = run(*COMMON, "--resume", "auto")
    assert status == 0, text
    assert "resuming after epoch 0, step 2" in text


def test_a_state_from_which_no_step_can_be_made_is_replaced(fails, pairs, monkeypatch):
    """Weights that are finite, but lead to no finite loss, were saved before that was known; the state before them takes their place."""
    destroy(monkeypatch, {4, 5, 6})
    fails(*COMMON, status=1)
    assert files.read_tensors(STATE)["progress"]["steps"] == 2
    assert not BEFORE.exists()


def test_rollback(run, pairs, monkeypatch):
    """The training returns to the last good state with half the rate, twice, and ends; the rate is part of the state."""
    destroy(monkeypatch, {3, 4, 5, 8, 9, 10})
    status, text = run(*COMMON, "--rollback", "2", "--print_every", "1")
    assert status == 0, text
    assert text.count("3 consecutive steps were skipped; return") == 2
    assert "return 2 of 2 to the state after epoch 0, step" in text
    progress = files.read_tensors(STATE)["progress"]
    assert (progress["rate"], progress["rollbacks"], progress["epoch"]) == (0.25, 2, 2)
    assert "learning rate 2.5e-05" in text
    log = Path("experiment/x/log.txt").read_text()
    assert log.count("return 2 of 2") == 1


def test_rollback_has_an_end(fails, pairs, monkeypatch):
    destroy(monkeypatch, set(range(3, 100)))
    assert "3 consecutive steps were skipped" in fails(*COMMON, "--rollback", "2", status=1)


def test_a_gradient_that_is_not_finite_is_skipped(run, pairs, monkeypatch):
    real = loss.Loss.forward

    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan") if len(calls) == 2 else gradient

    calls = []

    def forward(self, prediction, batch):
        calls.append(1)
        return real(self, {**prediction, "image": Bad.apply(prediction["image"])}, batch)
    monkeypatch.setattr(loss.Loss, "forward", forward)
    status, text = run(*COMMON)
    assert status == 0, text
    assert "is skipped because its gradient is not finite, in network." in text
    assert is_good(STATE)


def test_skipped_steps_are_counted(run, fails, pairs, monkeypatch):
    destroy(monkeypatch, {2, 3, 7})
    text = run(*COMMON)[1]
    assert ", 2 of 5 steps skipped" in text
    assert ", 1 of 5 steps skipped" in text
    assert "\n3 of 10 steps of the training were skipped\n" in text


def test_a_skipped_last_step_loses_nothing(run, pairs, monkeypatch):
    """The weights that were tested last are saved, and so is the best score with its weights."""
    destroy(monkeypatch, {5, 10})
    status, text = run(*COMMON)
    assert status == 0, text
    assert [files.read_tensors(f"experiment/x/model/model_{name}.pt")["note"]["epoch"] for name in ("latest", "best")] == [2, 2]
    state = files.read_tensors(STATE)["progress"]
    assert (state["epoch"], state["steps"], state["missed"]) == (2, 8, 2)
    assert state["best"] == files.read_tensors("experiment/x/model/model_best.pt")["note"]["score"]
    assert "is finished" in run(*COMMON)[1]


@pytest.mark.parametrize("step, made", [(2, 1), (3, 1), (4, 2)])
def test_stopped_while_a_step_is_skipped(run, pairs, monkeypatch, step, made):
    """A signal during a skipped step loses no step that was made, and the resumed training equals one without a stop."""
    from tests.test_resume import stop_after
    flags = [value for value in COMMON if value not in ("--save", "x")]
    with monkeypatch.context() as patch:
        destroy(patch, {2, 3})
        assert run(*flags, "--save", "whole")[0] == 0
    flags[flags.index("--save_every") + 1] = "0"
    with monkeypatch.context() as patch:
        destroy(patch, {2, 3})
        stop_after(patch, step)
        assert run(*flags, "--save", "parts")[0] == 143
    progress = files.read_tensors("experiment/parts/model/state.pt")["progress"]
    assert (progress["step"], progress["steps"]) == (step, made)
    destroy(monkeypatch, {3 - step} if step < 3 else set())
    assert run(*flags, "--save", "parts", "--resume", "auto")[0] == 0
    for name in ("log.txt", "log.jsonl"):
        whole, parts = (Path("experiment", folder, name).read_text().replace(f"/{folder}", "") for folder in ("whole", "parts"))
        assert whole == parts
    whole, parts = (files.read_tensors(f"experiment/{folder}/model/model_latest.pt")["state"] for folder in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_an_optimizer_that_is_destroyed(fails, pairs, monkeypatch):
    """With an infinite moment the weights stay finite, but a weight does not change any more."""
    after_step(monkeypatch, 4, lambda optimizer, parameter: optimizer.state[parameter]["exp_avg_sq"].fill_(float("inf")))
    assert "not finite any more, in exp_avg_sq of the optimizer (0)" in fails(*COMMON, status=1)
    assert files.read_tensors(STATE)["progress"]["steps"] == 3


def test_a_real_divergence(run, pairs):
    """SGD with a rate of 1e10: no state or model file has a value that is not finite, and --rollback returns to the start."""
    status, text = run(*COMMON, "--optimizer", "SGD", "--lr", "1e10", "--rollback", "2", "--save_every", "0")
    assert status == 1
    assert text.count("return 1 of 2 to the state after epoch 0, step") == 1
    assert text.count("return 2 of 2 to the state after epoch 0, step") == 1
    assert "the last good state and weights are kept" in text
    found = list(Path("experiment/x/model").glob("*.pt"))
    assert STATE in found
    for path in found:
        content = files.read_tensors(path)
        assert not detect.not_finite(content.get("network", content.get("state")))


def test_destroyed_by_the_last_step_of_an_epoch(fails, pairs, monkeypatch):
    """An epoch that is not tested, so that no result shows it."""
    after_step(monkeypatch, 5, lambda optimizer, parameter: parameter.data.fill_(float("nan")))
    monkeypatch.setattr(trainer, "SAVE_INTERVAL", -1)
    assert "not finite any more, in network." in fails(*COMMON, "--val_epochs", "9", status=1)
    assert not Path("experiment/x/model/model_latest.pt").exists()
    assert files.read_tensors(STATE)["progress"]["steps"] == 4


def test_an_epoch_without_a_step_fails(fails, pairs, monkeypatch):
    destroy(monkeypatch, set(range(1, 100)))
    monkeypatch.setattr(trainer, "MAX_SKIPPED", 50)
    assert "all 5 steps of epoch 1 were skipped" in fails(*COMMON, status=1)


def test_detect_names_the_module(run, pairs, monkeypatch):
    from model.smgarn import network
    real, calls = network.SMGARN.forward, []

    def forward(self, x):
        calls.append(1)
        return real(self, x * float("nan") if self.training and len(calls) == 4 else x)
    monkeypatch.setattr(network.SMGARN, "forward", forward)
    status, text = run(*COMMON, "--detect")
    assert status == 0, text
    assert "its loss is nan (not finite: L1); the output of " in text
    assert "(Conv2d) is the first that is not finite" in text


def test_a_state_that_cannot_be_trusted(run, fails, pairs):
    """Only the two logs are cut, only to whole numbers; all parts are checked before anything is changed."""
    assert run(*COMMON)[0] == 0
    Path("victim").write_text("kept")
    state, log = files.read_tensors(STATE), Path("experiment/x/log.txt").read_text()
    good = dict(state)
    for part, value, message in (
        ("log", {"../../victim": 0}, "'log' may only state the lengths of log.txt and log.jsonl, not '../../victim': 0"),
        ("log", {str(Path("victim").resolve()): 0}, "'log' may only state"),
        ("log", {"log.txt": -1}, "'log' may only state"),
        ("log", {"log.txt": "1"}, "'log' may only state"),
        ("progress", good["progress"] | {"step": -1}, "'step' is -1"),
        ("progress", good["progress"] | {"best": "much"}, "'best' is 'much'"),
        ("progress", good["progress"] | {"seen": [1]}, "'seen' is not a list of losses"),
        ("random", good["random"] | {"python": [3, [1, 2], None]}, "'random' has no valid state of python"),
        ("random", good["random"] | {"torch": torch.zeros(3)}, "'random' has no valid state of torch"),
        ("random", {}, "'random' has no valid state of python"),
        ("threads", {"threads": "many"}, "'threads' does not state"),
        ("network", {"a": 1}, "'network' holds 'a', which is not a tensor"),
    ):
        files.write_tensors(STATE, {**good, part: value})
        BEFORE.unlink(missing_ok=True)
        assert message in fails(*COMMON, "--epochs", "3", "--resume")
    assert Path("victim").read_text() == "kept"
    assert Path("experiment/x/log.txt").read_text() == log


def test_a_log_that_is_a_link(fails, pairs, run):
    assert run(*COMMON)[0] == 0
    Path("victim").write_text("kept")
    Path("experiment/x/log.txt").unlink()
    Path("experiment/x/log.txt").symlink_to(Path("victim").resolve())
    assert "log.txt is a link" in fails(*COMMON, "--epochs", "3", "--resume")
    assert Path("victim").read_text() == "kept"


def test_newest_state_of_nothing(place):
    assert experiment.newest_state(Path("experiment/none")) is None


def test_weights_that_give_no_numbers(run, pairs, monkeypatch):
    """An epoch ends before MAX_SKIPPED steps are skipped; the weights are finite, but the output of the test is not."""
    monkeypatch.setattr(trainer, "MAX_SKIPPED", 50)
    status, text = run(*COMMON, "--optimizer", "SGD", "--lr", "1e10", "--rollback", "1", "--save_every", "0")
    assert status == 1
    assert "4 of 5 steps skipped" in text
    assert "is not finite in the precision single; return 1 of 1 to the state after epoch 0, step 0, with half the learning rate" in text
    assert "the last good state and weights are kept" in text


def test_a_skipped_step_changes_no_running_statistics(run, pairs, monkeypatch):
    """Batch norm takes its statistics in the forward pass, before it is known that the step must be skipped."""
    real, calls = trainer.Step.forward, []

    def forward(self, batch):
        calls.append(1)
        if len(calls) == 3:
            batch.input[0, 0, 0, 0] = float("nan")
        return real(self, batch)
    monkeypatch.setattr(trainer.Step, "forward", forward)
    status, text = run("--model", "dncnn", *COMMON)
    assert status == 0, text
    assert "1 of 5 steps skipped" in text
    assert is_good(STATE)
