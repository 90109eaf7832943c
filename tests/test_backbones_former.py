"""Restormer and DRSformer give the same outputs as the released networks."""
from argparse import Namespace
from functools import cache
from types import ModuleType

import numpy as np
import pytest
import torch

from model import drsformer, restormer
from model.drsformer.network import DilatedConv, SparseAttention
from model.method import Method
from model.restormer.network import ChannelAttention
from runtime.errors import UserError
from tests.parity import facts, picture, released_state

PACKAGES = {"restormer": restormer, "drsformer": drsformer}
TOLERANCE = {"restormer": 1e-4, "drsformer": 1e-3}
PAPERS = {"restormer": 48, "drsformer": 32}


def small(package: ModuleType, channels: int = 8, blocks: str = "1-1-1-1") -> Method:
    """Return the method that build makes from the flags."""
    return package.build(Namespace(channels=channels, blocks=blocks))


@cache
def output(name: str) -> np.ndarray:
    """Return our network's output for the weights and input that tests/parity generates."""
    known = facts(f"r2a_{name}")
    method = small(PACKAGES[name], PAPERS[name], "4-6-6-8").eval()
    method.network.load_state_dict(PACKAGES[name].from_official(released_state(known)))
    with torch.inference_mode():
        return method.predict(picture(known))["image"].numpy()


@pytest.mark.parametrize("name", PACKAGES)
def test_equals_the_released_network(name, parity):
    theirs = np.load(parity / f"r2a_{name}.npz")["image"]
    assert np.linalg.norm(output(name) - theirs) / np.linalg.norm(theirs) < TOLERANCE[name]


@pytest.mark.parametrize("name", PACKAGES)
def test_golden_values(name):
    golden = np.array(facts(f"r2a_{name}")["golden"]["image"])
    ours = output(name)[0, :, 31, ::32].flatten()
    assert np.linalg.norm(ours - golden) / np.linalg.norm(golden) < TOLERANCE[name]


@pytest.mark.parametrize("name, parameters, tensors", [("restormer", 26_126_644, 494), ("drsformer", 15_609_136, 924)])
def test_parameters(name, parameters, tensors):
    network = small(PACKAGES[name], PAPERS[name], "4-6-6-8").network
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == tensors


@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
def test_unknown_keys_keep_their_name(package):
    state = dict.fromkeys(["body.0.weight", "encoder_level9.0.attn.qkv.weight", "embedding.weight"], torch.zeros(1))
    assert list(package.from_official(state)) == list(state)


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (64, 48)])
@pytest.mark.parametrize("channels", [2, 8])
@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
def test_any_size(package, channels, size):
    method = small(package, channels).eval()
    with torch.inference_mode():
        restored = method.restore(torch.rand(2, 3, *size))
    assert restored.shape == (2, 3, *size) and restored.isfinite().all()


@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
def test_every_parameter_gets_a_gradient(package):
    torch.manual_seed(1)
    method = small(package, blocks="2-1-1-1")
    method.predict(torch.rand(2, 3, 16, 24))["image"].square().sum().backward()
    idle = [name for name, parameter in method.network.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert idle == [] and method.unused == ()


@pytest.mark.parametrize("attention", [ChannelAttention, SparseAttention])
def test_each_image_of_a_batch_is_treated_alone(attention):
    part, x = attention(8, 2), torch.rand(3, 8, 5, 4)
    assert torch.allclose(part(x)[1:2], part(x[1:2]), atol=1e-6)


def test_sparse_attention_keeps_the_largest_logits():
    logits = torch.tensor([5.0, 1, 4, 2, 3, 0])[None, None, None].repeat(1, 1, 6, 1)
    part = SparseAttention(6, 1)
    weights = part.weights(logits)[0, 0, 0]
    kept = [[0, 2, 4], [0, 2, 4, 3], [0, 2, 4, 3], [0, 2, 4, 3]]        # floor of 6 / 2, 12 / 3, 18 / 4, 24 / 5
    expected = torch.zeros(6)
    for places in kept:
        expected[places] += 0.2 * logits[0, 0, 0, places].softmax(-1)
    assert torch.allclose(weights, expected)


def test_sparse_attention_of_a_single_channel_keeps_it():
    assert torch.allclose(SparseAttention(2, 2).weights(torch.zeros(1, 2, 1, 1)), torch.tensor(0.8))


@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
def test_flags_that_make_no_network_are_refused(package):
    with pytest.raises(UserError, match="--channels must be even for this model, which halves it between levels, not 7"):
        small(package, channels=7)
    for blocks in ("", "4", "4-6-6", "4-6-6-8-1", "4-6-0-8", "4-6-six-8", "1-1-1-100", "4-6-6-8\n", "4,6,6,8"):
        with pytest.raises(UserError, match="--blocks needs four numbers from 1 to 99, for example 4-6-6-8, not"):
            small(package, blocks=blocks)


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("channels", [4, 32])
def test_the_gradient_of_dilated_convolutions_in_bf16(channels, size):
    """In bf16 and channels_last torch computes a wrong one for the layer of torch on some CPUs."""
    torch.manual_seed(0)
    layer = DilatedConv(channels, size).to(memory_format=torch.channels_last)
    x = torch.rand(2, channels, 32, 32).to(memory_format=torch.channels_last)
    gradients = []
    for enabled in (False, True):
        layer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            layer(x).float().square().mean().backward()
        gradients.append(layer.weight.grad)
    assert (gradients[0] - gradients[1]).norm() < 0.05 * gradients[0].norm()
