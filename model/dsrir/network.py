"""DSRIR's network in plain PyTorch: takes images in [0, 1]; returns three restored images and their log-scale maps."""
import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

REDUCTION = 8                             # the middle layer of the attention has this factor fewer channels


def conv(inputs: int, outputs: int, size: int = 3, bias: bool = False) -> nn.Conv2d:
    """Return a convolution of stride 1 that keeps height and width."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias)


class PatchAttention(nn.Module):
    """Divides (B, C, H, W) into grid × grid patches and scales every channel of each; H and W are multiples of grid."""

    def __init__(self, channels: int, grid: int):
        super().__init__()
        self.grid = grid
        self.squeeze = conv(channels, channels // REDUCTION, 1, bias=True)
        self.excite = conv(channels // REDUCTION, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        patches = x.unflatten(-1, (self.grid, -1)).unflatten(-3, (self.grid, -1))         # (B, C, grid, h, grid, w)
        scale = self.excite(F.relu(self.squeeze(patches.mean((-3, -1))))).sigmoid()
        return (patches * scale[..., :, None, :, None]).flatten(-2).flatten(-3, -2)


class PAB(nn.Module):
    """x + PatchAttention(conv3(ReLU(conv3(x))))."""

    def __init__(self, channels: int, grid: int):
        super().__init__()
        self.conv1 = conv(channels, channels)
        self.conv2 = conv(channels, channels)
        self.attention = PatchAttention(channels, grid)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.conv2(F.relu(self.conv1(x))))


class PAG(nn.Module):
    """One PAB for every grid, then a convolution, with a skip connection around all."""

    def __init__(self, channels: int, grids: tuple[int, ...]):
        super().__init__()
        self.blocks = nn.Sequential(*(PAB(channels, grid) for grid in grids))
        self.tail = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.tail(self.blocks(x))


class PRU(nn.Module):
    """x + y * gate(y) with y = conv(x), a 3 × 3 convolution; the gate has a weight for every value of y."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = conv(channels, channels)
        self.squeeze = conv(channels, channels // REDUCTION, bias=True)
        self.excite = conv(channels // REDUCTION, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return x + y * self.excite(F.relu(self.squeeze(y))).sigmoid()


class USAU(nn.Module):
    """Computes a restored image, its log-scale map, and an attention (from the map's feature) on the input of the next subnet.

    The last unit has the layers of the attention because released weights contain them, but does not use them.
    """

    def __init__(self, channels: int, last: bool = False):
        super().__init__()
        self.last = last
        self.from_feature = conv(channels, channels, 1)
        self.from_image = conv(3, channels)
        self.to_image = conv(channels, 3)
        self.uncertainty = conv(channels, channels, bias=True)
        self.to_log_scale = conv(channels, 3, bias=True)
        self.onward = conv(channels, channels, 1)
        self.attention = conv(channels, channels, 1, bias=True)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the feature (B, C, H, W), the restored image and the log-scale map, both (B, 3, H, W)."""
        mixed = self.from_feature(x) + self.from_image(image)
        uncertainty = F.leaky_relu(self.uncertainty(mixed), 0.1)
        restored = self.to_image(mixed) + image
        log_scale = F.leaky_relu(self.to_log_scale(uncertainty), 0.1)
        if not self.last:
            x = x + self.onward(x) * self.attention(uncertainty).sigmoid()
        return x, restored, log_scale


class Down(nn.Module):
    """Halves height and width, then applies a 1 × 1 convolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.avg_pool2d(x, 2))      # equals bilinear interpolation by 0.5 for even sizes


class Up(nn.Module):
    """Doubles height and width by bilinear interpolation and applies a 1 × 1 convolution; their order does not matter."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.conv(x), scale_factor=2, mode="bilinear", align_corners=False)


class UNet(nn.Module):
    """Encoder and decoder of PABs; each level has a width, a grid, a number of blocks, and one PAB on its added skip connection."""

    def __init__(self, widths: tuple[int, ...], grids: tuple[int, ...], blocks: tuple[int, ...]):
        super().__init__()
        levels = list(zip(widths, grids, blocks))
        steps = list(itertools.pairwise(widths))
        self.encoders = nn.ModuleList(nn.Sequential(*(PAB(c, grid) for _ in range(n))) for c, grid, n in levels)
        self.decoders = nn.ModuleList(nn.Sequential(*(PAB(c, grid) for _ in range(n))) for c, grid, n in levels)
        self.skips = nn.ModuleList(PAB(c, grid) for c, grid, _ in levels[:-1])
        self.downs = nn.ModuleList(Down(fine, coarse) for fine, coarse in steps)
        self.ups = nn.ModuleList(Up(coarse, fine) for fine, coarse in steps)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, widths[0], H, W) like the input; H and W are multiples of 2^level · grid for every level."""
        x = self.encoders[0](x)
        skipped = []
        for down, encoder in zip(self.downs, self.encoders[1:]):
            skipped.append(x)
            x = encoder(down(x))
        x = self.decoders[-1](x)
        for level in reversed(range(len(skipped))):
            x = self.decoders[level](self.ups[level](x) + self.skips[level](skipped[level]))
        return x


class DSRIR(nn.Module):
    """Three subnets in sequence, each with a PRU and a USAU; `channels`, a multiple of 16, is the width of the first."""

    def __init__(self, channels: int = 32):
        super().__init__()
        assert channels % 16 == 0, channels
        self.widths = c1, c2, c3 = channels, channels * 3 // 2, channels * 2
        self.embedding = conv(3, c1 + c2 + c3)
        self.subnet1 = UNet(widths=(c1, c1 * 2, c1 * 3), grids=(8, 4, 2), blocks=(2, 2, 2))
        self.pru1, self.usau1 = PRU(c1), USAU(c1)
        self.merge2 = conv(c1 + c2, c2, 1)
        self.subnet2 = UNet(widths=(c2, c3), grids=(4, 2), blocks=(2, 4))
        self.pru2, self.usau2 = PRU(c2), USAU(c2)
        self.merge3 = conv(c2 + c3, c3, 1)
        self.subnet3 = nn.Sequential(*(PAG(c3, grids=(8, 4, 2, 1)) for _ in range(4)))
        self.pru3, self.usau3 = PRU(c3), USAU(c3, last=True)

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the restored images and log-scale maps of subnets 3 (the final result), 2, 1; H and W are multiples of 8."""
        x1, x2, x3 = self.embedding(image).split(self.widths, dim=1)
        x, restored1, log_scale1 = self.usau1(self.pru1(self.subnet1(x1)), image)
        x = self.merge2(torch.cat((x, x2), dim=1))
        x, restored2, log_scale2 = self.usau2(self.pru2(self.subnet2(x)), image)
        x = self.merge3(torch.cat((x, x3), dim=1))
        _, restored3, log_scale3 = self.usau3(self.pru3(self.subnet3(x)), image)
        return [restored3, restored2, restored1], [log_scale3, log_scale2, log_scale1]
