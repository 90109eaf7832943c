"""The network and the transfer modules of the two-stage method give the same outputs as the released ones."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from model.two_stage_kd import AllWeatherRestoration, build, ckt, from_official
from model.two_stage_kd.network import MSBDN
from runtime.errors import UserError
from tests.parity import facts, picture, released_state

OUTPUTS = ["image", "feature0", "feature1", "feature2", "feature3"]
WIDTHS = [64, 128, 256]
TRANSFERS = ["teacher_projected", "student_projected", "teacher_reconstructed"]     # in the order that Transfer returns them


def error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def sample(values: np.ndarray) -> np.ndarray:
    """Return the values that the stored facts contain."""
    return values.flatten()[::1501]


@pytest.fixture(scope="module")
def prediction() -> dict[str, np.ndarray]:
    """Return our network's output for the weights and input that tests/parity generates."""
    known = facts("twostage")
    method = AllWeatherRestoration().eval()
    method.network.load_state_dict(from_official(released_state(known)))
    with torch.inference_mode():
        given = method.predict(picture(known))
    return {"image": given["image"].numpy(), **{f"feature{n}": value.numpy() for n, value in enumerate(given["features"])}}


@pytest.fixture(scope="module")
def transferred() -> dict[str, np.ndarray]:
    """Return our transfer modules' outputs for the weights and inputs that tests/parity generates; each teacher has one image."""
    known, results = facts("twostage_ckt"), {}
    for width in WIDTHS:
        transfer = ckt.Transfer(width, teachers=3)
        transfer.load_state_dict(ckt.from_official(released_state({**known, "state_dict": known["state_dict"][str(width)]})))
        rng = np.random.RandomState(known["seed"] + width)
        teachers, student = [normal(rng, 1, width) for _ in range(3)], normal(rng, 3, width)
        with torch.inference_mode():
            outputs = transfer(teachers, student)
        results.update({f"{name}_{width}": value.numpy() for name, value in zip(TRANSFERS, outputs)})
    return results


def normal(rng: np.random.RandomState, count: int, width: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal((count, width, 8, 8)).astype(np.float32))


@pytest.mark.parametrize("name", OUTPUTS)
def test_equals_the_released_network(prediction, parity, name):
    theirs = np.load(parity / "twostage.npz")[name]
    assert prediction[name].shape == theirs.shape and error(prediction[name], theirs) < 1e-4


@pytest.mark.parametrize("name", OUTPUTS)
def test_golden_values(prediction, name):
    assert error(sample(prediction[name]), np.array(facts("twostage")["golden"][name])) < 1e-4


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TRANSFERS)
def test_equals_the_released_transfer(transferred, parity, name, width):
    theirs = np.load(parity / "twostage_ckt.npz")[f"{name}_{width}"]
    ours = transferred[f"{name}_{width}"]
    assert ours.shape == theirs.shape and error(ours, theirs) < 1e-4


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TRANSFERS)
def test_golden_values_of_transfer(transferred, name, width):
    golden = facts("twostage_ckt")["golden"][f"{name}_{width}"]
    assert error(sample(transferred[f"{name}_{width}"]), np.array(golden)) < 1e-4


def test_parameters():
    assert sum(p.numel() for p in MSBDN().parameters()) == 28_712_861
    assert len(MSBDN().state_dict()) == 390


def test_unknown_keys_keep_their_name():
    keys = ["body.0.weight", "network.dehaze.res0"]
    assert list(from_official(dict.fromkeys(keys))) == keys == list(ckt.from_official(dict.fromkeys(keys)))


def test_gradient_reaches_every_parameter():
    torch.manual_seed(0)
    network = MSBDN(channels=4, blocks=1)
    network(torch.rand(1, 3, 32, 48))[0].square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (16, 64), (33, 32), (64, 48)])
def test_any_size(size):
    method = AllWeatherRestoration(channels=4, blocks=1).eval()
    with torch.inference_mode():
        assert method.restore(torch.rand(2, 3, *size)).shape == (2, 3, *size)


def test_features():
    features = AllWeatherRestoration(channels=4, blocks=1).predict(torch.rand(2, 3, 32, 64))["features"]
    assert [tuple(f.shape) for f in features] == [(2, 16, 8, 16), (2, 32, 4, 8), (2, 64, 2, 4), (2, 64, 2, 4)]


def test_width_must_divide():
    assert build(SimpleNamespace(channels=8, blocks=2)).network.bottleneck[1].conv1.in_channels == 128
    with pytest.raises(UserError, match="--channels must be a multiple of 4 for this model, not 6"):
        build(SimpleNamespace(channels=6, blocks=2))


@pytest.mark.parametrize("shares", [(1, 0, 2), (0, 0, 3)])
def test_a_teacher_without_images(shares):
    """If a batch has no image of a weather, the gradient of that teacher's projectors is zero and all others are not."""
    torch.manual_seed(0)
    widths = [16, 32, 64, 64]
    collation = ckt.Collation(widths, teachers=3)
    teachers = [[torch.randn(share, width, 4, 4) for width in widths] for share in shares]
    student = [torch.randn(3, width, 4, 4, requires_grad=True) for width in widths]
    results = collation(teachers, student)
    assert len(results) == 4
    for width, (taught, learnt, rebuilt) in zip(widths, results):
        assert taught.shape == learnt.shape == (3, width // 2, 4, 4) and rebuilt.shape == (3, width, 4, 4)
    sum((taught - learnt).abs().mean() + rebuilt.abs().mean() for taught, learnt, rebuilt in results).backward()
    assert all(feature.grad.any() for feature in student)
    for name, parameter in collation.named_parameters():
        _, _, part, *rest = name.split(".")
        seen = part == "student" or shares[int(rest[0])] > 0
        assert bool(parameter.grad.any()) == seen, name
