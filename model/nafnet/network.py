"""NAFNet's network in plain PyTorch: degraded images in [0, 1] to restored images."""
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of every pixel of (B, C, H, W), eps 1e-6."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ChannelAttention(nn.Module):
    """Simplified channel attention: (B, C, H, W) times a linear function of its means over the image.

    With `window` the means are local in evaluation mode: over a window of that many pixels a side (TLC, arXiv 2112.04491).
    """

    def __init__(self, channels: int, window: int = 0):
        super().__init__()
        self.window = window
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        local = self.window and not self.training
        return x * self.mix(local_mean(x, self.window) if local else x.mean((-2, -1), keepdim=True))


class Block(nn.Module):
    """Two residual parts without activation functions for (B, C, H, W); products of two halves of the channels take their place."""

    def __init__(self, channels: int, window: int = 0):
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.enter1, self.enter2 = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(channels, 2 * channels, 1)
        self.local = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attention = ChannelAttention(channels, window)
        self.out1, self.out2 = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.scale1, self.scale2 = (nn.Parameter(torch.zeros(1, channels, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.out1(self.attention(gated(self.local(self.enter1(self.norm1(x)))))) * self.scale1
        return x + self.out2(gated(self.enter2(self.norm2(x)))) * self.scale2


class NAFNet(nn.Module):
    """A U-shaped network of Blocks; the image is added to the output.

    encoder, decoder: number of blocks on each level, finest and coarsest level first; middle: those on the coarsest level.
    window: side in pixels of the windows of local means at test (see ChannelAttention); each level halves it; 0: global means.
    """

    def __init__(self, channels: int = 32, encoder: tuple[int, ...] = (1, 1, 1, 28), middle: int = 1,
                 decoder: tuple[int, ...] = (1, 1, 1, 1), window: int = 0):
        super().__init__()
        widths = [channels * 2**level for level in range(len(encoder) + 1)]

        def blocks(level: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(Block(widths[level], window >> level) for _ in range(count)))

        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.encoders = nn.ModuleList(blocks(level, count) for level, count in enumerate(encoder))
        self.downs = nn.ModuleList(nn.Conv2d(width, 2 * width, 2, stride=2) for width in widths[:-1])
        self.middle = blocks(len(encoder), middle)
        self.ups = nn.ModuleList(nn.Conv2d(width, 2 * width, 1, bias=False) for width in reversed(widths[1:]))
        self.decoders = nn.ModuleList(blocks(len(decoder) - 1 - place, count) for place, count in enumerate(decoder))
        self.tail = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the restored image for (B, 3, H, W); H and W are multiples of 2**levels."""
        x, skipped = self.head(image), []
        for encoder, down in zip(self.encoders, self.downs):
            skipped.append(encoder(x))
            x = down(skipped[-1])
        x = self.middle(x)
        for up, decoder in zip(self.ups, self.decoders):
            x = decoder(F.pixel_shuffle(up(x), 2) + skipped.pop())
        return image + self.tail(x)


def gated(x: Tensor) -> Tensor:
    """Return the product of the two halves of the channels of (B, 2 C, H, W)."""
    first, second = x.chunk(2, dim=1)
    return first * second


def local_mean(x: Tensor, window: int) -> Tensor:
    """Return the mean of (B, C, H, W) over a window around each pixel, as float32 of the same shape.

    The window is `window` pixels a side, at most the whole side; near the border it is the nearest one inside the image.
    """
    for axis in (-2, -1):
        side = x.shape[axis]
        width = torch.sym_min(window, side)                       # not min, which an exporter would replace by one of both numbers
        first = (torch.arange(side, device=x.device) - (width - 1) // 2).clamp(0, side - width)
        sums = F.pad(x.float().cumsum(axis), (1, 0) if axis == -1 else (0, 0, 1, 0))
        x = sums.index_select(axis, first + width).sub_(sums.index_select(axis, first)).div_(width)
    return x
