"""The ResNet backbone in plain PyTorch: takes rainy images in [0, 1]; returns derained images."""
from torch import Tensor, nn
from torch.nn import functional as F


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution without bias that divides height and width by `stride`."""
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


def up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution that doubles height and width."""
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)


class Block(nn.Module):
    """ReLU(shortcut(x) + two normed convolutions of x); the first has the stride. The shortcut is x if the shapes are equal.

    The shortcut drops pixels before its 1 × 1 convolution, which equals a convolution with that stride. A strided one is avoided
    because oneDNN (torch 2.15, AVX2) writes outside its memory in its gradient for fewer than 8 channels in channels-last format.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.conv1, self.norm1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x[..., ::self.stride, ::self.stride]))


def level(inputs: int, outputs: int, stride: int = 2) -> nn.Sequential:
    """Return two blocks; the first has the stride."""
    return nn.Sequential(Block(inputs, outputs, stride), Block(outputs, outputs))


class ResNet(nn.Module):
    """ResNet-18 without classifier, then five steps up; `channels` is the width of the head, the levels have 1, 2, 4 and 8 times that."""

    def __init__(self, channels: int = 64):
        super().__init__()
        c1, c2, c3, c4 = (channels * factor for factor in (1, 2, 4, 8))
        self.head, self.norm = conv(3, c1, 7, stride=2), nn.BatchNorm2d(c1)
        self.encoders = nn.ModuleList((level(c1, c1, stride=1), level(c1, c2), level(c2, c3), level(c3, c4)))
        self.decoders = nn.ModuleList((up(c4, c3), up(c3, c2), up(c2, c1), up(c1, c1)))
        self.tail = up(c1, 3)

    def forward(self, image: Tensor) -> Tensor:
        """Return the derained image for (B, 3, H, W); H and W are multiples of 32."""
        features = [F.relu(self.norm(self.head(image)))]
        x = F.max_pool2d(features[0], 3, stride=2, padding=1)
        for encoder in self.encoders:
            x = encoder(x)
            features.append(x)
        for decoder, skip in zip(self.decoders, features[-2::-1]):
            x = F.relu(decoder(x)) + skip
        return self.tail(x)
