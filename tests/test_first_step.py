"""The total of each recipe's losses on fixed weights and pictures, so that no change moves them unseen."""
import json
from pathlib import Path

import pytest
import torch

import model
import option
from contract import Batch, Stage
from loss import Loss, pretrained
from tests.parity import picture, weight

KNOWN = json.loads((Path(__file__).parent / "parity" / "first_step.json").read_text())
SMALL = {"smgarn": ["--channels", "16"], "sapnet": ["--channels", "16", "--no-use_lpis", "--no-use_seg_stage1"],
         "dsrir": ["--channels", "16"], "two_stage_kd": ["--channels", "8", "--blocks", "2"]}


def filled(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """The module with weights by the parity fixtures' rule, from its own keys."""
    module.load_state_dict({key: torch.from_numpy(weight(key, list(value.shape), seed)) for key, value in module.state_dict().items()})
    return module


def pictures(seed: int) -> torch.Tensor:
    return torch.cat([picture({"seed": seed + number, "height": 64, "width": 64}) for number in range(3)])


def first_losses(name: str, monkeypatch) -> list[dict[str, float]]:
    """Total and terms of every distinct stage of a recipe on three pictures of three kinds."""
    monkeypatch.setattr(pretrained, "_vgg", lambda depth, file, folder: filled(pretrained.VGG(depth), 7).requires_grad_(False))
    args = option.parse(["--model", name, "--data_train", "A+B+C", *SMALL[name]])
    method = model.build(args)
    filled(method.network, 7)
    if name == "two_stage_kd":
        from model.two_stage_kd.ckt import Collation
        method.teachers = [filled(model.build(args).network, 8 + number).eval() for number in range(3)]
        method.projectors = filled(Collation(method.network.widths, 3), 7)
    batch = Batch(["a", "b", "c"], pictures(20), {"image": pictures(10), "mask": pictures(30)}, torch.tensor([2, 0, 1]))
    found = []
    for spec in dict.fromkeys(stage.loss for stage in args.stages):
        method.enter(Stage(1, spec, 64, 3))
        total, parts = Loss(spec, args)(method.train()(batch), batch)
        found.append({"loss": total.item(), **{key: value.item() for key, value in parts.items()}})
    return found


@pytest.mark.parametrize("name", list(SMALL))
def test_first_losses(name, monkeypatch, place):
    for ours, known in zip(first_losses(name, monkeypatch), KNOWN[name], strict=True):
        assert ours == pytest.approx(known, rel=1e-4)
