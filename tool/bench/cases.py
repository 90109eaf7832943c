"""All cases that are measured on a CPU, and the ways of the reference code and of the start of the program."""
import functools
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision import models

from contract import Batch
from data import demo
from loss.contrast import MCR, Contrast
from loss.pretrained import VGG
from loss.segmentation import Certainty
from model.rain2avoid import ldgp, nss
from tool.bench import loops, plain
from tool.bench.networks import COMPILED_TRAINING, NETWORKS, TRAINING, Setting, photo, reading, restoring, training
from tool.bench.table import REPO
from tool.bench.timing import PLAIN, Case, Way

CLASSES = 21                              # of the segmentation in UBS


def every(setting: Setting) -> list[Case]:
    """Return the cases of all groups."""
    quick, found = setting.quick, []
    for name in setting.models:
        size = (64, 64) if quick else NETWORKS[name].size
        found.append(Case("restore", f"{name}, {size[0]}x{size[1]}", functools.partial(restoring, setting, name, size),
                          about=NETWORKS[name].about[0]))
    ways = TRAINING | (COMPILED_TRAINING if "compile" in setting.backends else {})
    for name in setting.models:
        patch, batch = (32, 2) if quick else (64, NETWORKS[name].batch)
        found.append(Case("train", f"{name}, batch {batch}, patch {patch}",
                          functools.partial(training, setting, name, patch, batch, ways), "patches/s", batch, NETWORKS[name].about[1]))
    batches, patch, batch = (2, 32, 2) if quick else (20, 64, 16)
    count, side = (4, 32) if quick else (8, 64)
    rain = (20, 24) if quick else (60, 90)
    streaked = (81, 90) if quick else (100, 180)
    return [*found,
            Case("data", f"input, target and mask of 321x481, patch {patch}", functools.partial(reading, setting, batches, patch, batch),
                 "patches/s", batches * batch, 20),
            Case("code", f"NSS, 50 references, {rain[0]}x{rain[1]}", functools.partial(sampling, *rain), about=20),
            Case("code", f"LDGP, {streaked[0]}x{streaked[1]}", functools.partial(streaks, *streaked), about=30),
            Case("code", f"HCR with gradient, batch {count}, patch {side}", functools.partial(contrast, count, side), about=20),
            Case("code", f"UBS with gradient, batch {count // 2}, patch {side}", functools.partial(segmentation, count // 2, side),
                 about=20),
            Case("start", "time of the process", starting, about=60)]


def sampling(height: int, width: int) -> dict[str, Way]:
    """Return the ways of drawing references of a rainy image and averaging them."""
    rgb, prior = rainy(height, width)

    def ours() -> Tensor:
        return nss.draw(torch.from_numpy(rgb), torch.from_numpy(prior), sampling="released").fused()
    return {PLAIN: Way(lambda: lambda: loops.fused(rgb, prior), 0), "default": Way(lambda: ours, 0)}


def streaks(height: int, width: int) -> dict[str, Way]:
    """Return the ways of drawing the map of rain of an image."""
    rgb, _ = rainy(height, width)
    return {PLAIN: Way(lambda: lambda: loops.prior(rgb), 0), "default": Way(lambda: lambda: ldgp.prior(rgb), 0)}


def rainy(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a photo under slanting lines, (H, W, 3) uint8, and its map of rain by LDGP of the whole photo, (H, W) uint8."""
    whole = demo.photos("test")["coffee"][100:340, 100:340]
    y, x = np.mgrid[:whole.shape[0], :whole.shape[1]]
    lines = np.sin((np.cos(0.4) * x - np.sin(0.4) * y) * np.pi / 12)[..., None] ** 8
    rgb = (whole * (1 - 0.7 * lines) + 235 * 0.7 * lines).astype(np.uint8)
    return rgb[:height, :width].copy(), ldgp.prior(rgb)[:height, :width].copy()


def contrast(count: int, side: int) -> dict[str, Way]:
    """Return the ways of computing HCR and its gradient; VGG-19 has random weights."""
    torch.manual_seed(0)
    vgg = VGG(19).requires_grad_(False).eval()
    output, target, degraded = patches(3, count, side)
    term = Contrast(vgg, MCR, "image", "image", hard=True)
    batch = Batch([""] * count, degraded, {"image": target}, torch.zeros(count, dtype=torch.int64))
    return {PLAIN: Way(lambda: graded(output, lambda x: plain.hard_contrast(vgg.features, x, target, degraded))),
            "default": Way(lambda: graded(output, lambda x: term({"image": x}, batch)))}


def segmentation(count: int, side: int) -> dict[str, Way]:
    """Return the ways of computing UBS and its gradient; ResNet-101 has random weights."""
    torch.manual_seed(0)
    state = models.resnet101().state_dict()
    output, = patches(1, count, side)
    batch = Batch([""] * count, output, {}, torch.zeros(count, dtype=torch.int64))

    def anew(x: Tensor) -> Tensor:
        return plain.uncertainty(plain.segmentation(models.resnet101, state, CLASSES)(x))

    def ours() -> Callable[[], Tensor]:
        term = Certainty(plain.segmentation(models.resnet101, state, CLASSES), "image")
        return graded(output, lambda x: term({"image": x}, batch))
    return {PLAIN: Way(lambda: graded(output, anew)), "default": Way(ours)}


def graded(x: Tensor, loss: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
    """Return a call that computes a loss of x and its gradient, and returns both in one flat tensor, scaled to equal sizes."""
    def call() -> Tensor:
        output = x.clone().requires_grad_()
        value = loss(output)
        value.backward()
        assert output.grad is not None
        return torch.cat([value.detach().view(1), (output.grad * output.numel()).flatten()])
    return call


def patches(number: int, count: int, side: int) -> list[Tensor]:
    """Return some batches of patches of a photo, (count, 3, side, side)."""
    whole, rng = photo(400, 600), np.random.default_rng(0)
    corners = [(int(rng.integers(400 - side)), int(rng.integers(600 - side))) for _ in range(number * count)]
    found = torch.cat([whole[..., top:top + side, left:left + side] for top, left in corners])
    return list((found + 0.02 * torch.randn(found.shape, generator=torch.Generator().manual_seed(0))).split(count))


def starting() -> dict[str, Way]:
    """Return the programs that are started: all of them import torch, which the first one does alone."""
    def program(*arguments: str) -> Way:
        def call() -> None:
            subprocess.run([sys.executable, *arguments], cwd=REPO, check=True, stdout=subprocess.DEVNULL,
                           env={**os.environ, "PYTHONPATH": str(REPO)})
        return Way(lambda: call)
    return {"import torch": program("-c", "import torch"), "import unweather": program("-c", "import unweather"),
            "main.py --help": program("main.py", "--help")}
