"""UNet, ResNet and DnCNN give the same outputs as the released backbones of Rain2Avoid."""
import subprocess
from argparse import Namespace

import numpy as np
import pytest
import torch

import model
from model.unet.network import enlarged
from tests.conftest import REPO, python
from tests.parity import facts, picture, released_state

PARAMETERS = {"unet": 4_539_988, "resnet": 13_998_147, "dncnn": 558_336}
TENSORS = {"unet": 39, "resnet": 130, "dncnn": 92}
NAMES = list(PARAMETERS)


def small(name: str) -> model.Method:
    return model.build(Namespace(model=name, channels=4))


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    """Return our networks' outputs by name for the weights and input that tests/parity generates."""
    found = {}
    for name in NAMES:
        known, package = facts(f"r2a_{name}"), model.package(name)
        method = package.Deraining().eval()
        method.network.load_state_dict(package.from_official(released_state(known)))
        with torch.inference_mode():
            found[name] = method.predict(picture(known))["image"].numpy()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_released_network(images, parity, name):
    theirs = np.load(parity / f"r2a_{name}.npz")["image"]
    assert images[name].shape == theirs.shape
    assert np.linalg.norm(images[name] - theirs) / np.linalg.norm(theirs) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_golden_values(images, name):
    golden = np.array(facts(f"r2a_{name}")["golden"]["image"])
    ours = images[name][0, :, 31, ::8].flatten()
    assert np.linalg.norm(ours - golden) / np.linalg.norm(golden) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_parameters(name):
    network = model.package(name).Deraining().network
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]
    assert len(network.state_dict()) == TENSORS[name]


@pytest.mark.parametrize("name", NAMES)
def test_released_keys_become_ours_and_others_keep_their_name(name):
    known, package = [key for key, _ in facts(f"r2a_{name}")["state_dict"]], model.package(name)
    ours = list(small(name).network.state_dict())
    assert sorted(package.from_official(dict.fromkeys(known))) == sorted(ours)
    others = [*ours, "body.0.weight", "dec_5.conv.weight", "down6.0.weight", "dncnn.48.weight"]
    assert list(package.from_official(dict.fromkeys(others))) == others


def test_the_last_name_of_a_tensor_holds():
    keys = {key: key for key, _ in facts("r2a_resnet")["state_dict"]}
    assert not any(key.startswith("resnet") for key in model.package("resnet").from_official(keys).values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (64, 48)])
def test_any_size(name, size):
    method = small(name).eval()
    with torch.inference_mode():
        assert method.restore(torch.rand(2, 3, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns(name):
    method = small(name)
    (method.predict(torch.rand(2, 3, 64, 32))["image"] * torch.rand(2, 3, 64, 32)).sum().backward()
    assert [key for key, p in method.network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", NAMES)
def test_channels_scale_every_layer(name):
    wide, narrow = model.package(name).Deraining().network.state_dict(), small(name).network.state_dict()
    for key, value in wide.items():
        expected = [side // 16 if side % 64 == 0 else 4 + 3 if side == 64 + 3 else side for side in value.shape]
        assert list(narrow[key].shape) == expected, key


def test_no_strided_convolution_of_one_pixel():
    """With few channels a strided 1 × 1 convolution corrupts memory in training on the CPU; see Block in model/resnet/network.py."""
    convolutions = [m for name in NAMES for m in small(name).modules() if isinstance(m, torch.nn.Conv2d)]
    assert [m for m in convolutions if m.kernel_size == (1, 1) and m.stride != (1, 1)] == []


def test_torchvision_is_not_imported(tmp_path):
    code = "import sys, model; [model.package(name) for name in sys.argv[1:]]; print('torchvision' in sys.modules)"
    result = subprocess.run(python("-c", code, *NAMES), capture_output=True, text=True, cwd=tmp_path,
                            env={"PYTHONPATH": str(REPO), "PATH": ""}, check=True)
    assert result.stdout.strip() == "False"


def test_a_convolution_of_an_enlarged_feature():
    """The transposed convolution equals repeating pixels, concatenation and convolution, also at the borders."""
    torch.manual_seed(0)
    conv, x, skip = torch.nn.Conv2d(5, 4, 3, padding=1), torch.rand(2, 3, 4, 6), torch.rand(2, 2, 8, 12)
    expected = conv(torch.cat((x.repeat_interleave(2, -1).repeat_interleave(2, -2), skip), 1))
    assert torch.allclose(enlarged(conv, x, skip), expected, atol=1e-5)
