"""SMGARN's network in plain PyTorch: takes images with levels 0-255; returns the clean image and the snow mask."""
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    """Return a convolution of stride 1 that keeps height and width."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2)


class MaskBlock(nn.Module):
    """Self-pixel and cross-pixel attention: products of features with themselves and with each other (paper, section III-B)."""

    def __init__(self, channels: int):
        super().__init__()
        self.head = conv(channels, channels)
        self.self_pixel = conv(channels, channels, 1)
        self.middle = conv(channels, channels)
        self.cross_pixel1 = conv(channels, channels, 1)
        self.cross_pixel2 = conv(channels, channels, 1)
        self.tail = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):        # products of levels 0-255 overflow in half precision
            a = self.self_pixel(self.head(x.float()))
            x = F.relu(self.middle(a * a))
            return self.tail(self.cross_pixel1(x) * self.cross_pixel2(x))


class SnowMaskBlock(nn.Module):
    """A residual MaskBlock whose output is normalised over the channels of each pixel."""

    def __init__(self, channels: int):
        super().__init__()
        self.attention = MaskBlock(channels)
        self.norm = nn.LayerNorm(channels, eps=1e-5)
        self.tail = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(self.attention(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + self.tail(normed)


class MaskNet(nn.Module):
    """Stage I: computes a feature that guides stage II, and the snow mask."""

    def __init__(self, channels: int):
        super().__init__()
        self.head = nn.Sequential(conv(3, channels), conv(channels, channels))
        self.block = SnowMaskBlock(channels)
        self.to_feature = conv(channels, channels)
        self.to_mask = conv(channels, 3)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.to_feature(self.block(self.head(image)))
        return feature, self.to_mask(feature)


class ResidualUnit(nn.Module):
    """x + conv1(ReLU(conv1(conv3(x)))); conv1 and conv3 have kernels of 1 and 3 pixels; the middle has twice the channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.spatial = conv(channels, channels)
        self.expand = conv(channels, 2 * channels, 1)
        self.reduce = conv(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.reduce(F.relu(self.expand(self.spatial(x))))


class GuidanceFusion(nn.Module):
    """GF-Net: subtracts the snow feature from the image feature at two depths and fuses the results (paper, section III-C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.from_image = conv(3, channels)
        self.from_mask = conv(channels, channels)
        self.image_unit1, self.image_unit2 = ResidualUnit(channels), ResidualUnit(channels)
        self.mask_unit1, self.mask_unit2 = ResidualUnit(channels), ResidualUnit(channels)
        self.difference1, self.difference2 = conv(channels, channels), conv(channels, channels)
        self.unit1, self.unit2 = ResidualUnit(channels), ResidualUnit(channels)
        self.tail = nn.Sequential(conv(2 * channels, channels), nn.ReLU(inplace=True), conv(channels, channels))

    def forward(self, image: Tensor, feature: Tensor) -> Tensor:
        i = self.image_unit1(self.from_image(image))
        m = self.mask_unit1(self.from_mask(feature))
        first = self.unit1(self.difference1(i - m))
        i, m = self.image_unit2(i), self.mask_unit2(m)
        second = self.unit2(self.difference2(i - m))
        return self.tail(torch.cat((first, second), dim=1))


class MARB(nn.Module):
    """Multi-scale aggregated residual block: branches with three kernel sizes, merged in pairs (paper, section III-D)."""

    def __init__(self, channels: int):
        super().__init__()
        self.branch1 = nn.Sequential(conv(channels, channels, 1), conv(channels, channels))
        self.branch2 = nn.Sequential(conv(channels, channels, 3), conv(channels, channels))
        self.branch3 = nn.Sequential(conv(channels, channels, 5), conv(channels, channels))
        self.merge12 = conv(2 * channels, channels)
        self.merge23 = conv(2 * channels, channels)
        self.tail = conv(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2, x3 = self.branch1(x), self.branch2(x), self.branch3(x)
        a = self.merge12(torch.cat((x1, x2), dim=1))
        b = self.merge23(torch.cat((x2, x3), dim=1))
        return x + self.tail(F.relu(torch.cat((a, b), dim=1)))


class SMGARN(nn.Module):
    """Mask-Net, guidance fusion, `blocks` MARBs with a skip connection around them, and the output layers."""

    def __init__(self, channels: int = 112, blocks: int = 3):
        super().__init__()
        self.mask_net = MaskNet(channels)
        self.fusion = GuidanceFusion(channels)
        self.blocks = nn.Sequential(*(MARB(channels) for _ in range(blocks)))
        self.tail = nn.Sequential(conv(channels, channels), nn.ReLU(inplace=True), conv(channels, 3))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the clean image and the snow mask, both (B, 3, H, W) like the input."""
        feature, mask = self.mask_net(image)
        fused = self.fusion(image, feature)
        return self.tail(fused + self.blocks(fused)), mask
