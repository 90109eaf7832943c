"""Padding, tiles and self-ensemble give the same result as the whole image."""
import pytest
import torch
from torch import nn

from model import tiling
from model.smgarn import SnowRemoval


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def local(radius: int) -> nn.Module:
    """Return a convolution whose receptive field has this radius in pixels."""
    return nn.Conv2d(3, 3, 2 * radius + 1, padding=radius).eval()


@torch.inference_mode()
@pytest.mark.parametrize("height, width", [(64, 64), (65, 127), (200, 90), (30, 300)])
def test_tiles_equal_the_whole(height, width):
    fn, x = local(11), torch.rand(1, 3, height, width)
    assert torch.allclose(tiling.tiled(x, fn, tile=64, overlap=32), fn(x), atol=1e-5)


@torch.inference_mode()
def test_smgarn_in_tiles():
    method, x = SnowRemoval(channels=4).eval(), torch.rand(1, 3, 210, 330)
    whole = method.restore(x)
    assert torch.allclose(tiling.tiled(x, method.restore, tile=192, overlap=96), whole, atol=1e-4)
    assert not torch.allclose(tiling.tiled(x, method.restore, tile=64, overlap=0), whole, atol=1e-4)


def test_padding():
    shapes = []
    out = tiling.padded(torch.rand(1, 3, 13, 17), lambda x: shapes.append(x.shape) or x, 8)
    assert shapes == [(1, 3, 16, 24)] and out.shape == (1, 3, 13, 17)
    assert tiling.padded(torch.rand(1, 3, 1, 1), lambda x: x, 16).shape == (1, 3, 1, 1)


@torch.inference_mode()
def test_ensemble():
    x = torch.rand(1, 3, 20, 30)
    assert torch.allclose(tiling.ensemble(x, lambda v: v), x, atol=1e-6)
    fn = local(2)
    mean = tiling.ensemble(x, fn)
    assert torch.allclose(tiling.ensemble(x.flip(-1), fn).flip(-1), mean, atol=1e-5)     # the mean is the same for the flipped image
    assert not torch.allclose(fn(x), mean, atol=1e-3)
