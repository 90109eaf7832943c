"""Unsupervised background segmentation: a loss that is low if a frozen segmentation network is certain about the output."""
from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contract import Batch, Prediction
from loss import pretrained
from loss.pixel import pick_one


class FPN(nn.Module):
    """Feature pyramid network on the four stages of ResNet; its logits have a quarter of the image's height and width."""

    def __init__(self, classes: int):
        super().__init__()
        self.toplayer = nn.Conv2d(2048, 256, 1)
        self.latlayer1, self.latlayer2, self.latlayer3 = (nn.Conv2d(width, 256, 1) for width in (1024, 512, 256))
        for level in range(1, 5):                                 # level 1 is the coarsest
            setattr(self, f"smooth{level}_1", nn.Conv2d(256, 256, 3, padding=1))
            setattr(self, f"smooth{level}_2", nn.Conv2d(256, 128, 3, padding=1))
        self.classify = nn.Conv2d(512, classes, 3, padding=1)

    def forward(self, c2: Tensor, c3: Tensor, c4: Tensor, c5: Tensor) -> Tensor:
        """Return logits (B, classes, H / 4, W / 4) for ResNet's features of a (B, 3, H, W) image."""
        levels = [self.toplayer(c5)]
        for lateral, features in ((self.latlayer1, c4), (self.latlayer2, c3), (self.latlayer3, c2)):
            levels.append(resized(levels[-1], features) + lateral(features))
        smooth = [getattr(self, f"smooth{n}_2")(getattr(self, f"smooth{n}_1")(level)) for n, level in enumerate(levels, 1)]
        return self.classify(torch.cat([resized(level, c2) for level in smooth], dim=1))


def resized(x: Tensor, like: Tensor) -> Tensor:
    """Return x resized bilinearly to the height and width of another feature map."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)


class Segmentation(nn.Module):
    """FPN on ResNet-101: from (B, 3, H, W) in [0, 1], without ImageNet normalisation, to logits (B, classes, H / 4, W / 4)."""

    def __init__(self, resnet: nn.Module, classes: int = 21):
        super().__init__()
        self.resnet, self.fpn = resnet, FPN(classes)

    def forward(self, x: Tensor) -> Tensor:
        r: Any = self.resnet              # from torchvision, which has no type hints for it
        x, features = r.maxpool(r.relu(r.bn1(r.conv1(x)))), []
        for stage in (r.layer1, r.layer2, r.layer3, r.layer4):
            x = stage(x)
            features.append(x)
        return self.fpn(*features)


def focal(logits: Tensor) -> Tensor:
    """Return the mean of (1 - p)² · -log p, where p is the probability of the most likely class of each pixel."""
    log_p = F.log_softmax(logits.float(), dim=1).amax(1)
    return ((1 - log_p.exp()) ** 2 * -log_p).mean()


def ubs(prediction: str, target: str, args) -> nn.Module:
    """Focal loss of a frozen segmentation network on the output: ImageNet ResNet-101 with a fixed random FPN (SAPNet)."""
    return Certainty(_network(args.num_of_SegClass, args.weights_dir), prediction)


class Certainty(nn.Module):
    """The loss of a segmentation network on a predicted image: high where the network is uncertain."""

    def __init__(self, network: nn.Module, prediction: str):
        super().__init__()
        self.network, self.prediction = network, prediction

    def forward(self, prediction: Prediction, batch: Batch) -> Tensor:
        """Return the focal loss of the named image, a scalar."""
        return focal(self.network(pick_one(self.prediction, prediction)))

    def train(self, mode: bool = True) -> Certainty:
        """Stay in eval mode: the batch norms keep the ImageNet statistics."""
        return super().train(False)


@functools.lru_cache
def _network(classes: int, folder: str) -> Segmentation:
    """Return the segmentation network, built once; the weights of its FPN are drawn from N(0, 0.01²) with a fixed seed, biases are 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Segmentation(pretrained.resnet101(folder), classes)
        for layer in network.fpn.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0, 0.01)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
    return network.requires_grad_(False).eval()
