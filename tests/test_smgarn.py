"""SMGARN gives the same outputs as the released network."""
import numpy as np
import pytest
import torch

from model.smgarn import SnowRemoval, from_official
from model.smgarn.network import SMGARN
from tests.parity import facts, picture, released_state


@pytest.fixture(scope="module")
def prediction() -> dict[str, np.ndarray]:
    """Return our network's outputs in levels 0-255 for the weights and input that tests/parity generates."""
    known = facts("smgarn")
    method = SnowRemoval().eval()
    method.network.load_state_dict(from_official(released_state(known)))
    with torch.inference_mode():
        return {name: value.numpy() * 255 for name, value in method.predict(picture(known)).items()}


@pytest.mark.parametrize("name", ["image", "mask"])
def test_equals_the_released_network(prediction, parity, name):
    theirs = np.load(parity / "smgarn.npz")[name]
    assert np.linalg.norm(prediction[name] - theirs) / np.linalg.norm(theirs) < 1e-4


@pytest.mark.parametrize("name", ["image", "mask"])
def test_golden_values(prediction, name):
    golden = np.array(facts("smgarn")["golden"][name])
    ours = prediction[name][0, :, 31, ::32].flatten()
    assert np.linalg.norm(ours - golden) / np.linalg.norm(golden) < 1e-4


def test_parameters():
    assert sum(p.numel() for p in SMGARN().parameters()) == 6_868_966
    assert len(SMGARN().state_dict()) == 130


def test_unknown_keys_keep_their_name():
    assert list(from_official({"body.0.weight": torch.zeros(1)})) == ["body.0.weight"]


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (64, 48)])
def test_any_size(size):
    method = SnowRemoval(channels=4).eval()
    with torch.inference_mode():
        assert method.restore(torch.rand(2, 3, *size)).shape == (2, 3, *size)


def test_half_precision_stays_finite():
    """At the paper's width the products of levels 0-255 in the attention would overflow in half precision."""
    torch.manual_seed(0)
    method, x = SnowRemoval().eval(), torch.rand(1, 3, 24, 24)
    with torch.inference_mode():
        exact = method.predict(x)
        with torch.autocast("cpu", torch.float16):
            half = method.predict(x)
    for name in ("image", "mask"):
        assert torch.allclose(exact[name], half[name].float(), atol=2e-2)
