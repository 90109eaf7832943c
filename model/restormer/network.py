"""Restormer's network in plain PyTorch: degraded images in [0, 1] to restored images; DRSformer uses its U shape with other blocks."""
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EXPANSION = 2.66                          # the middle of a feed-forward part is wider by this factor


def conv(inputs: int, outputs: int, size: int = 3, groups: int = 1) -> nn.Conv2d:
    """Return a convolution of stride 1 without bias that keeps height and width."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of every pixel of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ChannelAttention(nn.Module):
    """MDTA: each channel of (B, C, H, W) becomes a weighted sum of the channels of its head, by their similarity over all pixels."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = conv(channels, 3 * channels, 1)
        self.local = conv(3 * channels, 3 * channels, groups=3 * channels)
        self.out = conv(channels, channels, 1)

    def weights(self, logits: Tensor) -> Tensor:
        """Return the weights of the sums over the n channels of each head, from logits; both are (B, heads, n, n)."""
        return logits.softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.flatten(2).unflatten(1, (self.heads, -1)) for part in self.local(self.qkv(x)).chunk(3, dim=1))
        lengths = (part.norm(dim=-1).clamp_min(1e-12) for part in (q, k))
        logits = q @ k.mT / (next(lengths)[..., :, None] * next(lengths)[..., None, :]) * self.temperature
        return self.out((self.weights(logits) @ v).reshape(x.shape))


class GatedFeedForward(nn.Module):
    """GDFN: computes 2 * int(2.66 C) features of (B, C, H, W) and multiplies one half by the GELU of the other."""

    def __init__(self, channels: int):
        super().__init__()
        inner = int(EXPANSION * channels)
        self.enter = conv(channels, 2 * inner, 1)
        self.local = conv(2 * inner, 2 * inner, groups=2 * inner)
        self.out = conv(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.local(self.enter(x)).chunk(2, dim=1)
        return self.out(F.gelu(gate) * value)


class Block(nn.Module):
    """Attention, then a feed-forward part; each is applied to the normalised (B, C, H, W) and added to its input."""

    def __init__(self, channels: int, attention: nn.Module, feedforward: nn.Module):
        super().__init__()
        self.norm1, self.attention = ChannelNorm(channels), attention
        self.norm2, self.feedforward = ChannelNorm(channels), feedforward

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feedforward(self.norm2(x))


class Down(nn.Module):
    """Convolution and pixel unshuffle: (B, C, H, W) to (B, 2 C, H / 2, W / 2)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = conv(channels, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(self.conv(x), 2)


class Up(nn.Module):
    """Convolution and pixel shuffle: (B, C, H, W) to (B, C / 2, 2 H, 2 W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = conv(channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


class UShape(nn.Module):
    """Encoder and decoder made of block(channels, heads): (B, C, H, W) to (B, 2 C, H, W), H and W are multiples of 8.

    Every coarser level has twice the channels and heads. The finest decoder works on the concatenation of features and skip
    connection, without a convolution that merges them.
    """

    def __init__(self, channels: int, blocks: tuple[int, ...], block: Callable[[int, int], nn.Module]):
        super().__init__()
        widths = [channels * 2**level for level in range(len(blocks))]
        outputs = [2 * channels, *widths[1:-1]]
        self.encoders = nn.ModuleList(nn.Sequential(*(block(width, 2**level) for _ in range(blocks[level])))
                                      for level, width in enumerate(widths))
        self.downs = nn.ModuleList(Down(width) for width in widths[:-1])
        self.ups = nn.ModuleList(Up(width) for width in widths[1:])
        self.merges = nn.ModuleList(conv(2 * width, width, 1) if level else nn.Identity() for level, width in enumerate(widths[:-1]))
        self.decoders = nn.ModuleList(nn.Sequential(*(block(width, 2**level) for _ in range(blocks[level])))
                                      for level, width in enumerate(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoders[0](x)
        skipped = []
        for down, encoder in zip(self.downs, self.encoders[1:]):
            skipped.append(x)
            x = encoder(down(x))
        for level in reversed(range(len(skipped))):
            x = self.merges[level](torch.cat((self.ups[level](x), skipped[level]), dim=1))
            x = self.decoders[level](x)
        return x


class Restormer(nn.Module):
    """A U shape of blocks with channel attention, then `refinement` blocks; the image is added to the output. `channels` is even."""

    def __init__(self, channels: int = 48, blocks: tuple[int, ...] = (4, 6, 6, 8), refinement: int = 4):
        super().__init__()
        self.embedding = conv(3, channels)
        self.body = UShape(channels, blocks, self.block)
        self.refinement = nn.Sequential(*(self.block(2 * channels, 1) for _ in range(refinement)))
        self.output = conv(2 * channels, 3)

    @staticmethod
    def block(channels: int, heads: int) -> Block:
        """Return one transformer block."""
        return Block(channels, ChannelAttention(channels, heads), GatedFeedForward(channels))

    def forward(self, image: Tensor) -> Tensor:
        """Return the restored image for (B, 3, H, W); H and W are multiples of 8."""
        return image + self.output(self.refinement(self.body(self.embedding(image))))
