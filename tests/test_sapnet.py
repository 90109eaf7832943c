"""SAPNet gives the same outputs as the released network, and its published weights give the measured numbers."""
import csv
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model.sapnet import Deraining, build, from_official
from model.sapnet.network import DILATIONS, SAPNet
from runtime.errors import UserError
from tests.parity import facts, picture, released_state

STEPS = [f"stage{number}" for number in range(1, 7)]
PUBLISHED = {                             # of the published weights on Rain100L's test images 1-4, results rounded to 8 bits
    "psnr": (33.6769, 34.0675, 30.9964, 31.0532),
    "psnr_y": (35.1684, 35.5024, 32.5447, 32.6021),
    "ssim_y": (0.9645, 0.9420, 0.9807, 0.9818),
}


@pytest.fixture(scope="module")
def outputs() -> dict[str, np.ndarray]:
    """Return our network's outputs, by the names in STEPS, for the weights and input that tests/parity generates."""
    known = facts("sapnet")
    method = Deraining().eval()
    method.network.load_state_dict(from_official(released_state(known)))
    with torch.inference_mode():
        prediction = method.predict(picture(known))
    assert prediction["image"] is prediction["steps"][-1] and len(prediction["steps"]) == 6
    return {name: value.numpy() for name, value in zip(STEPS, prediction["steps"])}


def error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.mark.parametrize("name", STEPS)
def test_equals_the_released_network(outputs, parity, name):
    theirs = np.load(parity / "sapnet.npz")[name]
    assert outputs[name].shape == theirs.shape and error(outputs[name], theirs) < 1e-4


@pytest.mark.parametrize("name", STEPS)
def test_golden_values(outputs, name):
    assert error(outputs[name][0, :, 31, ::32].flatten(), np.array(facts("sapnet")["golden"][name])) < 1e-4


def test_parameters():
    assert sum(p.numel() for p in SAPNet().parameters()) == 180_483
    assert len(SAPNet().state_dict()) == len(facts("sapnet")["state_dict"]) == 62


def test_unknown_keys_keep_their_name():
    keys = ["body.0.weight", "conv.1.weight", "res_conv6.0.bias", "conv0", "head.weight"]
    assert list(from_official(dict.fromkeys(keys))) == keys


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (64, 48)])
def test_any_size(size):
    method = Deraining(channels=16, steps=2).eval()
    with torch.inference_mode():
        assert method.restore(torch.rand(2, 3, *size)).shape == (2, 3, *size)


def test_every_parameter_is_used():
    method = Deraining(channels=16, steps=2)
    steps = method.predict(torch.rand(1, 3, 24, 32))["steps"]
    steps[-1].square().sum().backward()
    assert len(steps) == 2
    assert [name for name, p in method.network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("dilated", [True, False])
def test_flags(dilated):
    network = build(Namespace(channels=16, recurrent_iter=2, use_dilation=dilated)).network
    assert network.steps == 2 and network.head.out_channels == 16
    wide = [layer.dilation for layer in network.units.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)]
    assert wide == [(d, d) for d in DILATIONS for _ in range(2)] if dilated else wide == [(1, 1)] * 10


def test_a_width_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="multiple of 16 for this model, not 24"):
        build(Namespace(channels=24, recurrent_iter=2, use_dilation=True))


def test_published_weights(run, real_data):
    """The command line measures PSNR on RGB and Y and SSIM on Y of every image with the published weights."""
    weights = real_data.parent / "weights" / "sapnet_official.pth"
    if not weights.is_file():
        pytest.skip("SAPNet's published weights are not beside UNWEATHER_DATA")
    for kind in ("input", "target"):
        Path("dataset/four", kind).mkdir(parents=True)
        for number in range(1, 5):
            shutil.copy(real_data / "Rain100L" / kind / f"{number}.png", Path("dataset/four", kind))
    status, text = run("--model", "sapnet", "--pre_train", weights, "--test_only", "--data_test", "four", "--ext", "img",
                       "--loss", "1*L1", "--n_threads", "0", "--cpu")
    assert status == 0, text
    with open("experiment/test/metrics-four.csv", newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert sorted(rows) == ["1", "2", "3", "4"] and {row["protocol"] for row in rows.values()} == {"default"}
    for name, values in PUBLISHED.items():
        for number, value in enumerate(values, 1):
            assert abs(float(rows[str(number)][name]) - value) < (0.0005 if name == "ssim_y" else 0.01), (name, number)
