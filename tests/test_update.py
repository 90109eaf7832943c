"""The end of a training step on the device: bad steps, late numbers, and what `auto`, --compile and --deterministic do."""
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import nn

import trainer
import utility
from model import auto, norm, step, update
from runtime import files, late, memory, process
from tests.conftest import TINY
from tests.test_diverged import destroy

STATE = Path("experiment/x/model/state.pt")
OPTIMISERS = ("SGD", "ADAM", "ADAMW", "RMSPROP")


def flags(**changes) -> Namespace:
    return Namespace(**{"optimizer": "ADAM", "lr": 0.1, "weight_decay": 0.01, "momentum": 0.9, "betas": (0.9, 0.99), "epsilon": 1e-8,
                        "gclip": 0.0, "gclip_norm": 0.0} | changes)


def values(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [value.clone() for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("scaled", [False, True])
def test_a_bad_step_changes_neither_weights_nor_moments(name, scaled):
    layer, bad, fine = nn.Linear(3, 2), torch.tensor(1.0), torch.tensor(0.0)
    optimizer, scaler = update.make_optimizer(flags(optimizer=name), list(layer.parameters())), torch.amp.GradScaler("cpu", enabled=scaled)

    def make(trouble: torch.Tensor, value: float = 1.0) -> None:
        optimizer.zero_grad()
        scaler.scale((layer(torch.ones(1, 3)) * value).sum()).backward()
        scaler.unscale_(optimizer)
        update.step(optimizer, scaler, trouble)

    make(fine)
    before, moments = [each.detach().clone() for each in layer.parameters()], values(optimizer)
    make(bad)
    make(bad, float("nan"))
    assert all(map(torch.equal, layer.parameters(), before))
    assert all(map(torch.equal, values(optimizer), moments))
    make(fine)
    assert not any(map(torch.equal, layer.parameters(), before))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_parameter_whose_first_gradient_comes_later(name):
    """As at the start of a stage that trains further parts of a network."""
    first, second = nn.Linear(3, 2), nn.Linear(2, 2)
    optimizer = update.make_optimizer(flags(optimizer=name), [*first.parameters(), *second.parameters()])
    before = second.weight.detach().clone()
    for part in (first, nn.Sequential(first, second)):
        optimizer.zero_grad()
        part(torch.ones(1, 3)).sum().backward()
        update.step(optimizer, torch.amp.GradScaler("cpu", enabled=False), torch.tensor(0.0))
    assert not second.weight.equal(before) and second.weight.isfinite().all()


def test_the_statistics_of_shared_batch_norms_are_put_back():
    layer = nn.SyncBatchNorm(3)
    kept = norm.statistics(layer)
    layer.running_mean += 1
    norm.put_back(layer, kept, torch.tensor(1.0))
    assert len(kept) == 3 and layer.running_mean.equal(torch.zeros(3))


def test_complex_parameters_are_trained():
    weight = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    optimizer, scaler = update.make_optimizer(flags(), [weight]), torch.amp.GradScaler("cpu", enabled=False)
    weight.abs().sum().backward()
    for bad in (1.0, 0.0):
        before = weight.detach().clone()
        update.step(optimizer, scaler, torch.tensor(bad))
        assert torch.equal(weight, before) is bool(bad)


def test_the_average_does_not_move_in_a_bad_step():
    network, mean = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    nn.init.constant_(network.weight, 3.0)
    average = update.Average(network, mean, 0.5, steps=0)
    average.update(torch.tensor(1.0))
    assert mean.weight.tolist() == [1.0, 1.0]
    average.update(torch.tensor(0.0))                     # the first step: the decay is 2/11, as (1 + 1) / (10 + 1)
    assert torch.allclose(mean.weight, torch.tensor(3 - 2 * 2 / 11))
    for _ in range(30):
        before = mean.weight.clone()
        average.update(torch.tensor(0.0))
    assert torch.allclose(3 - mean.weight, (3 - before) * 0.5)


def test_the_first_gradient_that_is_not_finite_is_named():
    layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    layers(torch.ones(1, 2)).sum().backward()
    found = update.Gradient(layers, torch.device("cpu"))
    expected = nn.utils.get_total_norm([each.grad for each in layers.parameters()])
    assert torch.allclose(found.norm, expected) and int(found.first) == len(found.names) == 4
    layers[1].weight.grad[0, 0] = float("inf")
    found = update.Gradient(layers, torch.device("cpu"))
    assert found.names[int(found.first)] == "1.weight" and not found.norm.isfinite()


@pytest.mark.parametrize("limits", [dict(gclip=0.1), dict(gclip_norm=0.2), dict(gclip=0.1, gclip_norm=0.05)])
def test_clipping_equals_torch(limits):
    def gradients(layer: nn.Module) -> list[torch.Tensor]:
        return [each.grad for each in layer.parameters()]
    one = nn.Linear(3, 3)
    one(torch.randn(4, 3, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    two = nn.Linear(3, 3)
    for mine, other in zip(two.parameters(), one.parameters()):
        mine.grad = other.grad.clone()
    update.Gradient(one, torch.device("cpu")).clip(flags(**limits))
    if "gclip" in limits:
        nn.utils.clip_grad_value_(two.parameters(), limits["gclip"])
    if "gclip_norm" in limits:
        nn.utils.clip_grad_norm_(two.parameters(), limits["gclip_norm"])
    assert all(map(torch.allclose, gradients(one), gradients(two)))


def test_numbers_that_come_late():
    queue = late.Late(1)
    queue.put("a", torch.tensor([1.0]))
    assert queue.take() == []
    queue.put("b", torch.tensor([2.0]))
    assert queue.take() == [("a", [1.0])]
    assert queue.take(0) == [("b", [2.0])] and queue.take(0) == []


@pytest.mark.parametrize("more", [["--save_every", "3"], ["--split_batch", "2", "--ema", "0.9"], ["--save_every", "0.000001m"]])
def test_a_lag_changes_nothing(run, pairs, monkeypatch, more):
    """With numbers that come one step late, as on a GPU, a training with skipped steps logs and saves the same."""
    command = ["--data_train", "set", "--save", "x", *TINY, "--test_every", "7", "--epochs", "2", "--print_every", "2", "--reset", *more]
    found = []
    for lag in (0, 1):
        with monkeypatch.context() as patch:
            patch.setattr(trainer, "Late", lambda _, lag=lag: late.Late(lag))
            destroy(patch, {4, 9})
            status, text = run(*command)
        assert status == 0, text
        assert text.count("is skipped because its loss is nan") == 2 and "2 of 14 steps of the training were skipped" in text
        found.append((files.read_tensors(STATE), Path("experiment/x/log.jsonl").read_text()))
    (one, log), (other, late_log) = found
    assert one["progress"] == other["progress"] and log == late_log
    assert all(torch.equal(one["network"][key], other["network"][key]) for key in one["network"])


def test_precision_auto(run, pairs, monkeypatch):
    """bf16 is taken if the device has it, and 20 steps are faster and as good; a resumed training keeps what was chosen."""
    command = ["--data_train", "set", "--save", "x", *TINY, "--precision", "auto", "--split_batch", "2"]
    real, reported = auto._trial, {"bf16": (0.5, 1.0), "single": (0.5, 2.0)}

    def trial(args, part, batches, split, precision, state):
        mean, seconds = real(args, part, batches[:1], split, precision, state)
        assert 0 < mean < 10 and seconds > 0 and split == args.split_batch == 2
        return reported[precision]
    monkeypatch.setattr(auto, "_trial", trial)
    monkeypatch.setattr(auto, "STEPS", 4)
    monkeypatch.setattr(process, "has_bf16", lambda: True)
    status, text = run(*command)
    assert status == 0, text
    assert "--precision auto: bf16; the mean loss of the last 2 of 4 steps is 0.5 in bf16 and 0.5 in single" in text
    assert "on cpu x 1, bf16;" in text
    assert files.read_tensors(STATE)["auto"] == {"precision": "bf16", "parts": []}
    monkeypatch.setattr(process, "has_bf16", lambda: False)
    status, text = run(*command, "--resume", "-1", "--epochs", "2")
    assert status == 0 and "on cpu x 1, bf16;" in text and "--precision auto" not in text
    status, text = run(*command, "--reset")
    assert status == 0 and "--precision auto: single, because this cpu has no bfloat16" in text
    monkeypatch.setattr(process, "has_bf16", lambda: True)
    for low, high, chosen in (((0.6, 1.0), (0.5, 2.0), "single"), ((0.5, 3.0), (0.5, 2.0), "single"),
                              ((float("nan"), 1.0), (0.5, 2.0), "single"), ((-20.1, 1.0), (-20.0, 2.0), "bf16"),
                              ((-19.0, 1.0), (-20.0, 2.0), "bf16"), ((-17.0, 1.0), (-20.0, 2.0), "single")):
        reported |= {"bf16": low, "single": high}
        assert f"on cpu x 1, {chosen};" in run(*command, "--reset")[1]


@pytest.mark.parametrize("losses, ended", [([2, 2, 2, 2], True), ([2, 2, 1, 1], False), ([-20, -20, -20, -20], True), ([2, 2, 2], False),
                                           ([-20, -20, -21, -21], False), ([-20, -20, -19, -19], True)])
def test_plateau(losses, ended):
    """A stage has plateaued if its loss, which may be negative, has fallen by less than 1 %."""
    assert utility.has_plateaued(losses, 2) == ended


def test_precision_auto_changes_nothing_else(run, pairs, monkeypatch):
    """A training with --precision auto has the weights of one with the precision that was chosen."""
    monkeypatch.setattr(auto, "WORSE", -2.0)
    monkeypatch.setattr(process, "has_bf16", lambda: True)
    for save, more in (("x", ["auto"]), ("y", ["single"])):
        assert run("--data_train", "set", "--save", save, *TINY, "--precision", *more)[0] == 0
    one, other = (files.read_tensors(f"experiment/{save}/model/state.pt")["network"] for save in "xy")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_split_batch_auto(run, fails, pairs, monkeypatch):
    """A batch is computed in as few parts as fit into the memory, here 100 bytes and 100 more for each image."""
    command = ["--data_train", "set", "--save", "x", *TINY, "--batch_size", "4", "--split_batch", "auto"]
    measured = iter([200, 300] * 3)
    monkeypatch.setattr(memory, "peak", lambda work: work() or next(measured))
    for free, parts in ((10_000, 1), (450, 2), (250, 4)):
        monkeypatch.setattr(memory, "available", lambda free=free: free)
        status, text = run(*command, "--reset")
        assert status == 0, text
        assert f"batches of 4 with a patch size of 16 are computed in {parts} part" in text
        assert files.read_tensors(STATE)["auto"]["parts"] == [parts]
    measured = iter([200, 300])
    monkeypatch.setattr(memory, "available", lambda: 100)
    assert "one image of 16x16 pixels needs about 0.00 GiB, but 0.00 GiB are free; use a smaller" in fails(*command, "--reset", status=1)
    measured = iter([])
    status, text = run(*command, "--resume", "auto", "--epochs", "2", "--batch_size", "4")
    assert status == 0, text


def test_split_batch_auto_measures_memory(run, pairs):
    status, text = run("--data_train", "set", "--save", "x", *TINY, "--split_batch", "auto")
    assert status == 0 and "are computed in 1 part\n" in text


def test_a_network_that_cannot_be_compiled(fails, pairs, monkeypatch):
    def broken(_):
        def call(batch):
            raise RuntimeError("no C++ compiler was found\nand much more text")
        return call
    monkeypatch.setattr(torch, "compile", broken)
    sentence = fails("--data_train", "set", "--save", "x", *TINY, "--compile", status=1)
    assert "--compile: this network cannot be compiled here (no C++ compiler was found" in sentence and "leave out --compile" in sentence


@pytest.mark.slow
def test_compile_trains_the_same(run, pairs, monkeypatch, tmp_path):
    """Also with a loss of one term, which the compiler may return as the total.

    The compiler's cache is new: torch 2.14 reuses code for AVX-512 under ATEN_CPU_CAPABILITY=avx2, with gradients that are not finite.
    """
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    losses = []
    for save, more in (("x", []), ("y", ["--compile"])):
        status, text = run("--model", "dncnn", "--data_train", "set", "--save", save, *TINY, "--loss", "1*L1", *more)
        if "cannot be compiled here" in text:
            pytest.skip("torch.compile does not work on this machine")
        assert status == 0, text
        losses.append(files.read_tensors(f"experiment/{save}/model/state.pt")["progress"]["last_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and "--compile: the first step took" in text


def test_deterministic(run, pairs):
    try:
        for more, expected in ([], False), (["--deterministic"], True):
            assert run("--data_train", "set", "--save", "x", *TINY, "--reset", *more)[0] == 0
            assert torch.backends.cudnn.deterministic is expected and torch.backends.cudnn.benchmark is not expected
    finally:
        torch.backends.cudnn.benchmark = False


def test_what_the_loss_reaches():
    """Parameters without a part in the loss are found, so that DDP looks for them, and only then."""
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(2, 2), nn.Linear(2, 2)
    layers = Half()
    reached = step._reached(layers.used(torch.ones(1, 2)).relu().sum())
    assert reached == {id(each) for each in layers.used.parameters()}


def test_auto_with_features_of_a_teacher(monkeypatch):
    """A teacher refers to modules of the network that is trained; the trials, on a copy, receive the features of the copy."""
    from contract import Batch, Stage
    from loss import Loss
    from model import teacher
    from model.nafnet import Restoration
    monkeypatch.setattr(auto, "STEPS", 2)
    student, taught = (Restoration(4, (1,), 1, (1,)) for _ in range(2))
    monkeypatch.setattr(teacher, "_loaded", lambda *_: taught)
    loss = Loss("1*L1+1*L1:feature_1:teacher_feature_1", flags())
    made = step.Step(student, loss, teacher.Teacher("x.pt", "head", student, torch.device("cpu")))
    before = student.network.head.weight.detach().clone()
    x = torch.rand(1, 3, 16, 16)
    batch = Batch(["a"], x, {"image": x}, torch.zeros(1))
    mean, _ = auto._trial(flags(), made, [batch], 1, "single", process.random_state())
    assert 0 < mean < 10 and auto.parts(made, Stage(1, "1*L1", 16, 2), batch) == 1
    assert torch.equal(student.network.head.weight, before)
