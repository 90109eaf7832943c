"""MSBDN-RDFF, the network of student and teachers (Dong et al., CVPR 2020) in plain PyTorch: takes and returns images in [0, 1]."""
import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv(nn.Conv2d):
    """A convolution with reflection padding: stride 1 keeps height and width, stride 2 halves even heights and widths."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1):
        super().__init__(inputs, outputs, size, stride, padding=size // 2, padding_mode="reflect")

    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        """Return the result times `factor`, which is multiplied with the weights."""
        assert self.bias is not None
        side = self.kernel_size[0] // 2
        with torch.autocast(x.device.type, enabled=False):        # on a CPU autocast would convert x to float32 and back
            x = F.pad(x, (side, side, side, side), mode="reflect")
        weight, bias = (self.weight, self.bias) if factor == 1 else (factor * self.weight, factor * self.bias)
        return F.conv2d(x, weight, bias, self.stride)


class ResidualBlock(nn.Module):
    """x + 0.1 conv(PReLU(conv(x))); input and output are (B, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2 = Conv(channels, channels), Conv(channels, channels)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.act(self.conv1(x)), 0.1)


def residual_blocks(channels: int, count: int) -> nn.Sequential:
    """Return a sequence of `count` residual blocks."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


class DenseBlock(nn.Module):
    """Residual dense block: the input of each layer is all outputs before it; a 1 × 1 convolution merges them; keeps (B, C, H, W)."""

    def __init__(self, channels: int, layers: int = 4):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(channels * n, channels, 3, padding=1, bias=False) for n in range(1, layers + 1))
        self.merge = nn.Conv2d(channels * (layers + 1), channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found = x
        for layer in self.layers:
            found = torch.cat((found, F.relu(layer(found))), dim=1)
        return x + self.merge(found)


def rescale(inputs: int, outputs: int, finer: bool) -> nn.Sequential:
    """Return a convolution and a PReLU that double height and width (`finer`) or halve them."""
    kind = nn.ConvTranspose2d if finer else nn.Conv2d
    return nn.Sequential(kind(inputs, outputs, 4, stride=2, padding=1), nn.PReLU())


class BackProjection(nn.Module):
    """Dense feature fusion: corrects a feature by its difference from each feature in the memory.

    The steps `go` bring the feature (B, C, h, w) to the scale of a feature in the memory; the steps `back` bring the difference
    back to the feature's scale. A step to a finer scale halves the channels, a step to a coarser scale doubles them.
    """

    def __init__(self, channels: int, steps: int, finer: bool):
        super().__init__()
        widths = [channels // 2**n if finer else channels * 2**n for n in range(steps + 1)]
        pairs = list(itertools.pairwise(widths))
        self.go = nn.ModuleList(rescale(near, far, finer) for near, far in pairs)
        self.back = nn.ModuleList(rescale(far, near, not finer) for near, far in pairs)

    def forward(self, feature: Tensor, memory: list[Tensor]) -> Tensor:
        for steps, remembered in zip(range(len(memory), 0, -1), memory):    # the first has the most distant scale
            difference = feature
            for step in self.go[:steps]:
                difference = step(difference)
            difference = difference - remembered
            for step in reversed(self.back[:steps]):
                difference = step(difference)
            feature = feature + difference
        return feature


class Mixer(nn.Module):
    """Fuses half of the channels with the memory and appends the result to it; applies a dense block to the other half."""

    def __init__(self, channels: int, steps: int, finer: bool):
        super().__init__()
        self.fuse = BackProjection(channels // 2, steps, finer)
        self.dense = DenseBlock(channels // 2)

    def forward(self, x: Tensor, memory: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the mixed feature, (B, C, h, w) like x, and the memory with one more feature."""
        fused, rest = x.chunk(2, dim=1)
        fused = self.fuse(fused, memory)
        return torch.cat((fused, self.dense(rest)), dim=1), [*memory, fused]


class Encoder(nn.Module):
    """One level of the encoder: (B, C / 2, 2h, 2w) to (B, C, h, w)."""

    def __init__(self, channels: int, steps: int, blocks: int):
        super().__init__()
        self.down = Conv(channels // 2, channels, stride=2)
        self.mix = Mixer(channels, steps, finer=True)
        self.blocks = residual_blocks(channels, blocks)

    def forward(self, x: Tensor, memory: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        x, memory = self.mix(self.down(x), memory)
        return (x + self.blocks(x) if len(self.blocks) else x), memory


class Decoder(nn.Module):
    """One level of the decoder: (B, 2C, h / 2, w / 2) to (B, C, h, w), with the encoder's feature of that level.

    Strengthen, operate, subtract (MSBDN's boosted decoder): with s = up + skip, it computes blocks(s) + s - up = blocks(s) + skip.
    """

    def __init__(self, channels: int, steps: int, blocks: int = 3):
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * channels, channels, 3, stride=2)
        self.blocks = residual_blocks(channels, blocks)
        self.mix = Mixer(channels, steps, finer=False)

    def forward(self, x: Tensor, skip: Tensor, memory: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        up = F.interpolate(self.up(x), skip.shape[-2:], mode="bilinear", align_corners=False)
        return self.mix(self.blocks(up + skip) + skip, memory)


class MSBDN(nn.Module):
    """Four encoder levels, a bottleneck of `blocks` residual blocks, four decoder levels; the widths are C, 2C, 4C, 8C, 16C."""

    def __init__(self, channels: int = 16, blocks: int = 18):
        super().__init__()
        widths = [channels * 2**n for n in range(5)]
        self.widths = [*widths[2:], widths[-1]]                   # of the features that `forward` returns
        self.head = Conv(3, channels, 11)
        self.blocks = residual_blocks(channels, 3)
        self.encoders = nn.ModuleList(Encoder(width, n + 1, blocks=3 if n < 3 else 0) for n, width in enumerate(widths[1:]))
        self.bottleneck = residual_blocks(widths[-1], blocks)
        self.decoders = nn.ModuleList(Decoder(width, n + 1) for n, width in enumerate(reversed(widths[:-1])))
        self.tail = Conv(channels, 3)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the clean image, (B, 3, H, W) like the input, and four features at H / 4, H / 8, H / 16 and H / 16.

        Height and width are multiples of 16 and at least 32. The features have 4C, 8C, 16C and 16C channels.
        """
        x = self.head(image)
        memory = [x.chunk(2, dim=1)[0]]
        levels = [x + self.blocks(x)]
        for encoder in self.encoders:
            x, memory = encoder(levels[-1], memory)
            levels.append(x)
        x = deepest = self.bottleneck(2 * x) + x                  # the decoder's formula where `up` equals `skip`
        memory = [x.chunk(2, dim=1)[0]]
        for decoder, skip in zip(self.decoders, reversed(levels[:-1])):
            x, memory = decoder(x, skip, memory)
        return self.tail(x), [*levels[2:], deepest]
