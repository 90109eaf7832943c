"""Structural similarity as a loss."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from contract import Batch, Prediction
from loss.pixel import pick

C1, C2 = 0.01**2, 0.03**2


def ssim(prediction: str, target: str, args) -> Callable:
    """1 - SSIM, Gaussian window 11, sigma 1.5, zero padding, mean over pixels and channels (PReNet, SAPNet)."""
    def term(output: Prediction, batch: Batch) -> Tensor:
        return 1 - similarity(pick(prediction, output), pick(target, batch.targets, output))
    return term


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean structural similarity of (B, C, H, W) in [0, 1], computed in float32."""
    position = torch.arange(11, device=a.device, dtype=torch.float32) - 5
    window = torch.exp(-position**2 / (2 * 1.5**2))
    window = window / window.sum()
    channels = a.shape[1]

    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(x, window.view(1, 1, -1, 1).expand(channels, 1, -1, 1), padding=(5, 0), groups=channels)
        return F.conv2d(x, window.view(1, 1, 1, -1).expand(channels, 1, 1, -1), padding=(0, 5), groups=channels)

    with torch.autocast(a.device.type, enabled=False):
        a, b = a.float(), b.float()
        mean_a, mean_b = blur(a), blur(b)
        variances = blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2
        covariance = blur(a * b) - mean_a * mean_b
        similar = (2 * mean_a * mean_b + C1) * (2 * covariance + C2) / ((mean_a**2 + mean_b**2 + C1) * (variances + C2))
        return similar.mean()
