"""DSRIR gives the same outputs as the released network."""
from argparse import Namespace

import numpy as np
import pytest
import torch

from model.dsrir import AllInOneRestoration, build, from_official
from model.dsrir.network import DSRIR
from runtime.errors import UserError
from tests.parity import facts, picture, released_state

OUTPUTS = ["restored3", "restored2", "restored1", "log_scale3", "log_scale2", "log_scale1"]


@pytest.fixture(scope="module")
def outputs() -> dict[str, np.ndarray]:
    """Return our network's outputs, by the names in OUTPUTS, for the weights and input that tests/parity generates."""
    known = facts("dsrir")
    method = AllInOneRestoration().eval()
    method.network.load_state_dict(from_official(released_state(known)))
    with torch.inference_mode():
        prediction = method.predict(picture(known))
    assert prediction["image"] is prediction["restored"][0]
    return {name: value.numpy() for name, value in zip(OUTPUTS, prediction["restored"] + prediction["log_scale"])}


@pytest.mark.parametrize("name", OUTPUTS)
def test_equals_the_released_network(outputs, parity, name):
    theirs = np.load(parity / "dsrir.npz")[name.replace("log_scale", "variance")]
    assert np.linalg.norm(outputs[name] - theirs) / np.linalg.norm(theirs) < 1e-4


@pytest.mark.parametrize("name", OUTPUTS)
def test_golden_values(outputs, name):
    golden = np.array(facts("dsrir")["golden"][name])
    ours = outputs[name][0, :, 31, ::32].flatten()
    assert np.linalg.norm(ours - golden) / np.linalg.norm(golden) < 1e-4


def test_parameters():
    assert sum(p.numel() for p in DSRIR().parameters()) == 3_516_837
    assert len(DSRIR().state_dict()) == 316


def test_unknown_keys_keep_their_name():
    state = dict.fromkeys(["body.0.weight", "SN4.encoder1.0.conv1.weight", "embedding.weight"], torch.zeros(1))
    assert list(from_official(state)) == list(state)


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (64, 48)])
def test_any_size(size):
    method = AllInOneRestoration(channels=16).eval()
    with torch.inference_mode():
        assert method.restore(torch.rand(2, 3, *size)).shape == (2, 3, *size)


def test_only_the_unused_parts_get_no_gradient():
    method = AllInOneRestoration(channels=16)
    prediction = method.predict(torch.rand(1, 3, 16, 24))
    sum(value.sum() for value in prediction["restored"] + prediction["log_scale"]).backward()
    idle = {name for name, parameter in method.network.named_parameters() if parameter.grad is None}
    assert idle == {"usau3.onward.weight", "usau3.attention.weight", "usau3.attention.bias"}
    assert all(name.startswith(tuple(f"{part}." for part in method.unused)) for name in idle)


def test_channels_that_do_not_divide_are_refused():
    assert isinstance(build(Namespace(channels=48)), AllInOneRestoration)
    with pytest.raises(UserError, match="multiple of 16 for this model, not 20"):
        build(Namespace(channels=20))
