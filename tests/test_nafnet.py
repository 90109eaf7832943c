"""NAFNet: equal to the released network, its size, its local means at test, its flags."""
from argparse import Namespace
from functools import cache

import numpy as np
import pytest
import torch

from model import nafnet
from model.method import Method
from model.nafnet.network import ChannelAttention, local_mean
from restore import agreement, programs
from runtime.errors import Failure, UserError
from tests.parity import facts, picture, released_state

NAMES = ("nafnet", "nafnet_local")


def built(channels: int, blocks: str, tlc: int = 0) -> Method:
    return nafnet.build(Namespace(channels=channels, blocks=blocks, tlc=tlc)).eval()


@cache
def output(name: str) -> np.ndarray:
    """Return our network's output for the weights and input that tests/parity generates."""
    known = facts(name)
    blocks = "/".join("-".join(map(str, np.atleast_1d(known[part]))) for part in ("enc", "mid", "dec"))
    method = built(known["channels"], blocks, known["train_size"] or 0)
    assert sum(parameter.numel() for parameter in method.parameters()) == known["parameters"]
    method.network.load_state_dict(nafnet.from_official(released_state(known)))
    with torch.inference_mode():
        return method.predict(picture(known))["image"].numpy()


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_released_network(name, parity):
    theirs = np.load(parity / f"{name}.npz")["image"]
    assert np.linalg.norm(output(name) - theirs) / np.linalg.norm(theirs) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_golden_values(name):
    golden = np.array(facts(name)["golden"]["image"])
    assert np.linalg.norm(output(name)[0, :, 31, ::8].flatten() - golden) / np.linalg.norm(golden) < 1e-4


@pytest.mark.parametrize("channels, blocks, parameters", [
    (16, "1-1-1-28/1/1-1-1-1", 4_347_827),
    (32, "1-1-1-28/1/1-1-1-1", 17_111_907),
    (32, "2-2-4-8/12/2-2-2-2", 29_159_715),
])
def test_parameters(channels, blocks, parameters):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in built(channels, blocks).parameters()) == parameters


@pytest.mark.parametrize("window", [1, 2, 5, 6, 9, 40])
def test_local_means(window):
    x = torch.randn(2, 3, 9, 13, generator=torch.Generator().manual_seed(0))
    expected = torch.empty_like(x)
    height, width = min(window, 9), min(window, 13)
    for row in range(9):
        for column in range(13):
            top = min(max(row - (height - 1) // 2, 0), 9 - height)
            left = min(max(column - (width - 1) // 2, 0), 13 - width)
            expected[..., row, column] = x[..., top:top + height, left:left + width].mean((-2, -1))
    torch.testing.assert_close(local_mean(x, window), expected, rtol=0, atol=1e-5)


def test_means_are_local_only_at_test():
    attention, x = ChannelAttention(4, window=8), torch.rand(1, 4, 16, 16)
    whole = ChannelAttention(4)
    whole.load_state_dict(attention.state_dict())
    assert torch.equal(attention.train()(x), whole(x))
    assert not torch.allclose(attention.eval()(x), whole(x))
    torch.testing.assert_close(attention(x[..., :8, :8]), whole(x[..., :8, :8]))


def test_any_depth():
    """The image's sides are padded to multiples of 2**levels."""
    method = built(4, "1/0/2")
    assert method.multiple_of == 2
    assert method.restore(torch.rand(1, 3, 13, 7)).shape == (1, 3, 13, 7)


@pytest.mark.parametrize("text", ["", "1-1", "1-1/1", "1-1/1/1", "1/1/1/1", "1-1/1/1-1-", "a/1/1", "1-100/1/1-1",
                                  "1-1-1-1-1-1-1/1/1-1-1-1-1-1-1"])
def test_wrong_blocks(text):
    with pytest.raises(UserError, match="for example 1-1-1-28/1/1-1-1-1, not"):
        built(4, text)


def test_exported_windows():
    """A traced network has the windows at sides below and above that of its example."""
    method = scaled(built(4, "1/1/1", tlc=64))
    program = programs.traced(method, "nafnet").module()
    for sides in ((32, 48), (96, 130), (150, 96), (200, 260)):
        x = torch.rand(1, 3, *sides, generator=torch.Generator().manual_seed(0)) * torch.linspace(0, 1, sides[1])
        with torch.inference_mode():
            torch.testing.assert_close(program(x), method.restore(x), rtol=0, atol=1e-5)
            if max(sides) > 96:           # the windows matter there
                assert not torch.allclose(program(x), without_windows(method).restore(x), rtol=0, atol=1e-3)


def test_windows_in_onnx(tmp_path):
    """The check of an exported file finds lost windows; a file with windows passes it."""
    pytest.importorskip("onnxruntime")
    method = scaled(built(4, "1/1/1", tlc=16))
    for each in (method, without_windows(method)):
        content, opened = programs.as_onnx(programs.traced(each, "nafnet"), {"model": "nafnet"})
        (tmp_path / "x.onnx").write_bytes(content)
        if each is method:
            agreement.check(method, opened(tmp_path / "x.onnx"))
        else:
            with pytest.raises(Failure, match="differs from the original"):
                agreement.check(method, opened(tmp_path / "x.onnx"))


def scaled(method: Method) -> Method:
    """Fill a network with numbers by which attention matters."""
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            parameter.normal_(float("scale" in name), 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    return method


def without_windows(method: Method) -> Method:
    whole = built(4, "1/1/1")
    whole.load_state_dict(method.state_dict())
    return whole
