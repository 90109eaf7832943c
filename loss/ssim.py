"""Structural similarity as a loss."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from contract import Batch, Prediction
from loss.pixel import pick_one
from runtime.errors import UserError

C1, C2 = 0.01**2, 0.03**2


def ssim(prediction: str, target: str, args, window: int = 11, sigma: float = 1.5) -> Callable:
    """1 - SSIM with a Gaussian window (side and sigma in pixels), zero padding, mean over pixels and channels (PReNet, SAPNet)."""
    if not (0 < window < 100 and window % 2 and sigma > 0):
        raise UserError(f"--loss: SSIM needs an odd window from 1 to 99 and a positive sigma, not window={window}, sigma={sigma:g}")

    def term(output: Prediction, batch: Batch) -> Tensor:
        return 1 - similarity(pick_one(prediction, output), pick_one(target, batch.targets, output), window, sigma)
    return term


def similarity(a: Tensor, b: Tensor, side: int = 11, sigma: float = 1.5) -> Tensor:
    """Return the mean structural similarity of (B, C, H, W) in [0, 1], computed in float32."""
    margin = side // 2
    position = torch.arange(side, device=a.device, dtype=torch.float32) - margin
    window = torch.exp(-position**2 / (2 * sigma**2))
    window = window / window.sum()
    channels = a.shape[1]

    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(x, window.view(1, 1, -1, 1).expand(channels, 1, -1, 1), padding=(margin, 0), groups=channels)
        return F.conv2d(x, window.view(1, 1, 1, -1).expand(channels, 1, 1, -1), padding=(0, margin), groups=channels)

    with torch.autocast(a.device.type, enabled=False):
        a, b = a.float(), b.float()
        mean_a, mean_b = blur(a), blur(b)
        variances = blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2
        covariance = blur(a * b) - mean_a * mean_b
        similar = (2 * mean_a * mean_b + C1) * (2 * covariance + C2) / ((mean_a**2 + mean_b**2 + C1) * (variances + C2))
        return similar.mean()
