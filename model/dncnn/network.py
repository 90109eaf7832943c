"""The DnCNN backbone in plain PyTorch: takes rainy images in [0, 1]; returns derained images."""
from torch import Tensor, nn
from torch.nn import functional as F

LAYERS = 15                               # layers with a norm, between the first and the last convolution


class Layer(nn.Module):
    """ReLU(norm(conv(x))) with a 3 × 3 convolution that keeps the number of channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class DnCNN(nn.Module):
    """A chain of convolutions of width `channels` without a skip connection: the output is the image, not its noise."""

    def __init__(self, channels: int = 64):
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.layers = nn.Sequential(*(Layer(channels) for _ in range(LAYERS)))
        self.tail = nn.Conv2d(channels, 3, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the derained image for (B, 3, H, W) of any size."""
        return self.tail(self.layers(F.relu(self.head(image))))
