"""The UNet backbone in plain PyTorch: takes rainy images in [0, 1]; returns derained images."""
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Down(nn.Module):
    """ReLU(norm(conv(x))) at half the height and width; the first one in the network has no norm."""

    def __init__(self, inputs: int, outputs: int, size: int, normed: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride=2, padding=size // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs) if normed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class Up(nn.Module):
    """LeakyReLU(norm(conv(x, skip))) at twice the height and width of x; see `enlarged`."""

    def __init__(self, inputs: int, skipped: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs + skipped, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(enlarged(self.conv, x, skip)), 0.2)


def enlarged(conv: nn.Conv2d, x: Tensor, skip: Tensor) -> Tensor:
    """Return a 3 x 3 convolution of x (B, C, H, W), enlarged by repeating pixels, and skip (B, D, 2H, 2W), concatenated.

    Repeated pixels meet sums of weights, so that x itself, with a transposed convolution of stride 2, needs 4/9 of the multiply-adds.
    """
    weight = conv.weight[:, :x.shape[1]]
    for axis in (-2, -1):
        first, middle, last = weight.unbind(axis)
        weight = torch.stack((last, middle + last, first + middle, first), axis)
    small = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2, padding=1)
    return small + F.conv2d(skip, conv.weight[:, x.shape[1]:], conv.bias, padding=1)


class UNet(nn.Module):
    """Four levels down and four up, the last without norm; `channels` is the width of the first level, which doubles at each level."""

    def __init__(self, channels: int = 64):
        super().__init__()
        c1, c2, c3, c4 = (channels * factor for factor in (1, 2, 4, 8))
        self.encoders = nn.ModuleList((Down(3, c1, size=7, normed=False), Down(c1, c2, size=5), Down(c2, c3, size=5), Down(c3, c4, size=3)))
        self.decoders = nn.ModuleList((Up(c4, c3, c3), Up(c3, c2, c2), Up(c2, c1, c1)))
        self.tail = nn.Conv2d(c1 + 3, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the derained image for (B, 3, H, W); H and W are multiples of 16."""
        features = []
        x = image
        for encoder in self.encoders:
            x = encoder(x)
            features.append(x)
        for decoder, skip in zip(self.decoders, features[-2::-1]):
            x = decoder(x, skip)
        return enlarged(self.tail, x, image)
