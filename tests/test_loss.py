"""Loss specifications and the pixel terms."""
import pytest
import torch

import loss
from data.batch import Batch
from utility import UserError

X = torch.tensor([0.0, 0.5]).view(1, 1, 1, 2)
BATCH = Batch(["a"], X, {"image": X + 0.25, "mask": X}, torch.tensor([0]))
PREDICTION = {"image": X, "mask": X + 1, "teacher_image": X + 2}


@pytest.mark.parametrize("spec, total, names", [
    ("1*L1", 0.25, ["L1"]),
    ("2*MSE", 0.125, ["MSE"]),
    ("1*Charbonnier", (0.25**2 + 1e-6) ** 0.5, ["Charbonnier"]),
    ("1*L1+0.5*L1:mask", 0.75, ["L1", "L1:mask"]),
    ("1*L1:image:mask", 0.0, ["L1:mask"]),
    ("1*L1:image:teacher_image", 2.0, ["L1:teacher_image"]),       # a target that the method gives itself
])
def test_terms(spec, total, names):
    value, parts = loss.Loss(spec)(PREDICTION, BATCH)
    assert value.item() == pytest.approx(total)
    assert list(parts) == names


def test_parts_are_unweighted():
    _, parts = loss.Loss("3*L1+5*L1:mask")(PREDICTION, BATCH)
    assert [round(float(value), 6) for value in parts.values()] == [0.25, 1.0]


def test_unknown_names():
    with pytest.raises(UserError, match="--loss names 'depth', but here are only: image, mask"):
        loss.Loss("1*L1:depth")(PREDICTION, BATCH)


def test_without_a_target():
    assert loss.targets("1*L1+1*L1:mask") == {"image", "mask"}
    assert loss.without("1*L1+1*L1:mask", "mask") == "1*L1"
    assert loss.without("1*L1:mask", "mask") == "1*L1"
