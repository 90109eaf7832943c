"""--teacher: the frozen network's answer and features as targets of the loss, for any pair of models."""
import pytest
import torch

from contract import Batch
from model import teacher, weights
from model.nafnet import Restoration
from runtime.errors import UserError
from tests.conftest import TINY

STUDENT = ("--model", "nafnet", "--channels", "4", "--blocks", "1-1/1/1-1", *TINY[2:])
DISTIL = ("--loss", "1*L1+0.5*L1:image:teacher")


@pytest.fixture
def unet(run, pairs):
    """A model file of a tiny UNet."""
    assert run("--model", "unet", "--save", "teacher", "--data_train", "set", *TINY, "--no-report")[0] == 0
    return "experiment/teacher/model/model_best.pt"


@pytest.fixture
def wide(place):
    """A model file of a NAFNet of width 8, and the batch that students of width 4 and 8 see."""
    torch.manual_seed(0)
    method = Restoration(8, (1, 1), 1, (1, 1))
    for parameter in method.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    content = {"format": weights.FORMAT, "model": "nafnet", "arguments": {"channels": 8, "blocks": "1-1/1/1-1"}, "note": {},
               "state": method.network.state_dict()}
    torch.save(content, "wide.pt")
    x = torch.rand(2, 3, 16, 16)
    return method.eval(), Batch(["a", "b"], x, {"image": x}, torch.zeros(2))


def test_the_teachers_answer_is_a_target(wide):
    method, batch = wide
    student = Restoration(4, (1,), 1, (1,))
    prediction = teacher.Teacher("wide.pt", "", student, torch.device("cpu")).join(student, batch)
    torch.testing.assert_close(prediction["teacher"], method.restore(batch.input))
    assert not prediction["teacher"].requires_grad
    assert prediction["image"].requires_grad
    assert set(prediction) == {"image", "teacher"}


def test_features_of_both_networks(wide):
    method, batch = wide
    student = Restoration(8, (1,), 1, (1,))
    taught = teacher.Teacher("wide.pt", "head+middle=encoders.1", student, torch.device("cpu"))
    prediction = taught.join(student, batch)
    torch.testing.assert_close(prediction["feature_1"], student.network.head(batch.input))
    torch.testing.assert_close(prediction["teacher_feature_1"], method.network.head(batch.input))
    assert prediction["feature_2"].shape == prediction["teacher_feature_2"].shape == (2, 16, 8, 8)
    assert not student.network.head._forward_hooks


@pytest.mark.parametrize("features, message", [
    ("none", "the model has no module 'none'; its outermost modules are head, encoders"),
    ("head=none", r"wide.pt has no module 'none'"),
    ("", "the model has no module ''"),
    ("head", r"feature_1 has the shape \(2, 4, 16, 16\) and the teacher's \(2, 8, 16, 16\)"),
])
def test_wrong_features(wide, features, message):
    student = Restoration(4, (1,), 1, (1,))
    with pytest.raises(UserError, match=message):
        teacher.Teacher("wide.pt", features or "head+", student, torch.device("cpu")).join(student, wide[1])


def test_any_model_teaches_any_model(run, unet):
    """The student's training differs from one without a teacher; stopped after one epoch and resumed, it ends with the same weights."""
    flags = (*STUDENT, "--data_train", "set", "--teacher", unet, *DISTIL, "--schedule", "step", "--epochs", "2", "--no-report")
    assert run("--save", "whole", *flags)[0] == 0
    status, text = run("--save", "parts", *flags, "--epochs", "1")
    assert status == 0
    assert "L1:teacher" in text
    assert run("--save", "parts", *flags, "--resume", "auto")[0] == 0
    assert run("--save", "alone", *flags, "--teacher", "", "--loss", "1*L1")[0] == 0
    whole, parts, alone = (weights.read(f"experiment/{name}/model/model_latest.pt").state for name in ("whole", "parts", "alone"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert any(not torch.equal(whole[key], alone[key]) for key in whole)


@pytest.mark.parametrize("flags, message", [
    (("--teacher", "{}"), "has no effect, because --loss does not name it"),
    (("--teacher", "none.pt", *DISTIL), "the file none.pt does not exist"),
    (DISTIL, "--loss names 'teacher', which does not exist"),
    (("--teacher_features", "head"), "--teacher_features needs a teacher"),
])
def test_a_teacher_that_cannot_be(fails, unet, flags, message):
    assert message in fails("--save", "x", *STUDENT, "--data_train", "set", *(flag.format(unet) for flag in flags))
