"""Plain code that does the same work as the framework, in the way in which released code does it: short, eager, in float32.

It uses the framework's network modules and decoder, so that the work is the same, and nothing else of it. Operations that the modules
compute in another, faster order than their papers state them are put back (`as_published`).
"""
import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

from contract import Batch
from data import image
from loss.segmentation import Segmentation
from model import dsrir, restormer, two_stage_kd, unet
from model.method import Method

WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)               # HCR: of relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
TAPS = (1, 6, 11, 20, 29)                 # places of these layers in VGG-19


class WholeImages(Dataset):
    """Samples of a folder with input/ and targets: each one decodes whole files, then cuts a random patch of them.

    A key is (epoch, position, index); crops and flips depend on the seed and the key as in data/loader.py, so that both draw the same.
    """

    def __init__(self, folder: Path, targets: tuple[str, ...], patch: int, seed: int, flips: bool):
        self.files = {name: image.listing(folder / ("target" if name == "image" else name)) for name in ("input", *targets)}
        self.patch, self.seed, self.flips = patch, seed, flips

    def __len__(self) -> int:
        return len(self.files["input"])

    def __getitem__(self, key: tuple[int, int, int]) -> dict[str, Tensor]:
        """Return the patches of a sample, (3, patch, patch) in [0, 1]."""
        epoch, position, index = key
        pictures = {name: image.read(files[index]) for name, files in self.files.items()}
        rng = np.random.default_rng((self.seed, epoch, position))
        top, left = (int(rng.integers(side - self.patch + 1)) for side in pictures["input"].shape[:2])
        rows, columns, transpose = rng.integers(2, size=3) if self.flips else (0, 0, 0)
        tensors = {}
        for name, picture in pictures.items():
            part = picture[top:top + self.patch, left:left + self.patch]
            part = part[::-1] if rows else part
            part = part[:, ::-1] if columns else part
            part = part.transpose(1, 0, 2) if transpose else part
            tensors[name] = torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1))).float() / 255
        return tensors


def batches(dataset: WholeImages, draws: Sampler) -> Iterator[Batch]:
    """Yield batches without end from a loader without worker processes."""
    for images in endless(DataLoader(dataset, batch_sampler=draws, num_workers=0)):
        count = len(images["input"])
        yield Batch([""] * count, images.pop("input"), images, torch.zeros(count, dtype=torch.int64))


def endless(loader: DataLoader) -> Iterator:
    """Yield what a loader yields, epoch after epoch."""
    for epoch in itertools.count(1):
        loader.batch_sampler.epoch = epoch
        yield from loader


@contextlib.contextmanager
def as_published() -> Iterator[None]:
    """Within the block the networks compute their operations one by one as the papers state them; the weights stay the same."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(unet.network, "enlarged", _joined))
        for layer, forward in ((two_stage_kd.network.Conv, _reflected), (dsrir.network.Up, _interpolated),
                               (restormer.network.ChannelAttention, _attended)):
            stack.enter_context(mock.patch.object(layer, "forward", forward))
        yield


def _joined(conv: nn.Conv2d, x: Tensor, skip: Tensor) -> Tensor:
    return conv(torch.cat((F.interpolate(x, scale_factor=2, mode="nearest"), skip), dim=1))


def _reflected(conv: nn.Conv2d, x: Tensor, factor: float = 1.0) -> Tensor:
    return factor * nn.Conv2d.forward(conv, x) if factor != 1 else nn.Conv2d.forward(conv, x)


def _interpolated(up: nn.Module, x: Tensor) -> Tensor:
    return up.conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))


def _attended(attention: nn.Module, x: Tensor) -> Tensor:
    q, k, v = (part.flatten(2).unflatten(1, (attention.heads, -1)) for part in attention.local(attention.qkv(x)).chunk(3, dim=1))
    logits = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * attention.temperature
    return attention.out((attention.weights(logits) @ v).reshape(x.shape))


def training(method: Method, loss: nn.Module, batches: Iterator[Batch], args, device: torch.device) -> Callable[[], float]:
    """Return a function that makes a step of a plain training loop and returns the loss."""
    optimizer = torch.optim.Adam(method.parameters(), lr=args.lr, betas=args.betas, eps=args.epsilon, foreach=False)
    method.train()

    def step() -> float:
        batch = next(batches).to(device)
        optimizer.zero_grad()
        with as_published():
            total, _ = loss(method(batch), batch)
        total.backward()
        optimizer.step()
        return total.item()
    return step


def hard_contrast(vgg: nn.Sequential, output: Tensor, target: Tensor, degraded: Tensor) -> Tensor:
    """Return HCR with the differences of all pairs of outputs and inputs in memory (two-stage knowledge learning, section 3.4)."""
    def features(x: Tensor) -> list[Tensor]:
        found = []
        for place, layer in enumerate(vgg):
            x = layer(x)
            found += [x] if place in TAPS else []
        return found
    total = torch.zeros(())
    with torch.no_grad():
        positives, negatives = features(target), features(degraded)
    for weight, ours, clean, rainy in zip(WEIGHTS, features(output), positives, negatives):
        near = (ours - clean).abs().mean()
        far = (ours[:, None] - rainy[None]).abs().mean()
        total = total + weight * near / (far + 1e-7)
    return total


def segmentation(resnet: Callable[[], nn.Module], state: dict[str, Tensor], classes: int) -> Segmentation:
    """Return the segmentation network of UBS with random heads, frozen; the released code builds it anew in every step."""
    body = resnet()
    body.load_state_dict(state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Segmentation(body, classes)
        for layer in network.fpn.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0, 0.01)
                nn.init.zeros_(layer.bias)
    return network.requires_grad_(False).eval()


def uncertainty(logits: Tensor) -> Tensor:
    """Return the focal loss of logits (B, C, H, W) for the most likely class of each pixel, as a cross-entropy."""
    errors = F.cross_entropy(logits, logits.argmax(1), reduction="none")
    return ((1 - torch.exp(-errors)) ** 2 * errors).mean()
