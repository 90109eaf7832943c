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
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)         # exponents of the scales of MS-SSIM, finest first


def ssim(prediction: str, target: str, args, window: int = 11, sigma: float = 1.5) -> Callable:
    """1 - SSIM with a Gaussian window (side and sigma in pixels), zero padding, mean over pixels and channels (PReNet, SAPNet)."""
    if not (0 < window < 100 and window % 2 and sigma > 0):
        raise UserError(f"--loss: SSIM needs an odd window from 1 to 99 and a positive sigma, not window={window}, sigma={sigma:g}")

    def term(output: Prediction, batch: Batch) -> Tensor:
        return 1 - similarity(pick_one(prediction, output), pick_one(target, batch.targets, output), window, sigma)
    return term


def ms_ssim(prediction: str, target: str, args, scales: int = 5, window: int = 11, sigma: float = 1.5) -> Callable:
    """1 - MS-SSIM (Wang et al., 2003): scales, each of half the size, by a Gaussian window inside the image; needs large patches."""
    if not (1 <= scales <= 5 and 0 < window < 100 and window % 2 and sigma > 0):
        raise UserError("--loss: MSSSIM needs 1 to 5 scales, an odd window from 1 to 99 and a positive sigma, "
                        f"not scales={scales}, window={window}, sigma={sigma:g}")

    def term(output: Prediction, batch: Batch) -> Tensor:
        a, b = pick_one(prediction, output), pick_one(target, batch.targets, output)
        least = window * 2 ** (scales - 1)
        if min(a.shape[-2:]) < least:
            raise UserError(f"--loss: MSSSIM(scales={scales}, window={window}) needs patches of at least {least} pixels, not "
                            f"{min(a.shape[-2:])}; use a larger --patch_size, fewer scales or a smaller window")
        return 1 - multiscale(a, b, scales, window, sigma)
    return term


def multiscale(a: Tensor, b: Tensor, scales: int = 5, side: int = 11, sigma: float = 1.5) -> Tensor:
    """Return the multi-scale similarity of (B, C, H, W) in [0, 1] in float32, mean over images and channels.

    With fewer than five scales the exponents of the finest ones are scaled so that their sum is 1.
    """
    exponents, product = SCALES[:scales], torch.ones((), device=a.device)
    with torch.autocast(a.device.type, enabled=False):
        a, b = a.float(), b.float()
        for number, exponent in enumerate(exponents):
            whole, structure = (each.mean((-2, -1)) for each in _maps(a, b, side, sigma, pad=False))
            value = whole if number == scales - 1 else structure
            product = product * value.clamp(min=1e-6) ** (exponent / sum(exponents))
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return product.mean()


def similarity(a: Tensor, b: Tensor, side: int = 11, sigma: float = 1.5) -> Tensor:
    """Return the mean structural similarity of (B, C, H, W) in [0, 1], computed in float32."""
    with torch.autocast(a.device.type, enabled=False):
        return _maps(a.float(), b.float(), side, sigma, pad=True)[0].mean()


def _maps(a: Tensor, b: Tensor, side: int, sigma: float, pad: bool) -> tuple[Tensor, Tensor]:
    """Return the maps of SSIM and of its part for contrast and structure; with `pad` zeros surround the images."""
    margin = side // 2 if pad else 0
    position = torch.arange(side, device=a.device, dtype=torch.float32) - side // 2
    window = torch.exp(-position**2 / (2 * sigma**2))
    window = window / window.sum()
    channels = a.shape[1]

    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(x, window.view(1, 1, -1, 1).expand(channels, 1, -1, 1), padding=(margin, 0), groups=channels)
        return F.conv2d(x, window.view(1, 1, 1, -1).expand(channels, 1, 1, -1), padding=(0, margin), groups=channels)

    mean_a, mean_b = blur(a), blur(b)
    variances = blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    whole = (2 * mean_a * mean_b + C1) * (2 * covariance + C2) / ((mean_a**2 + mean_b**2 + C1) * (variances + C2))
    return whole, (2 * covariance + C2) / (variances + C2)
