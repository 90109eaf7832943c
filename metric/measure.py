"""PSNR, SSIM, MS-SSIM and mean absolute error of images (B, C, H, W) in [0, 1], computed on the device of the images."""
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from runtime.errors import UserError

BT601 = (65.481, 128.553, 24.966)         # luma of R, G, B in [0, 1] on the 16-235 scale
C1, C2 = 0.01**2, 0.03**2
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)      # weights of MS-SSIM (Wang et al. 2003)


def quantise(x: Tensor, rounding: str) -> Tensor:
    """Return x clipped to [0, 1], in 256 levels by 'round' or 'truncate' ('none': not quantised), float64 (float32 on Apple's GPUs)."""
    x = x.to(torch.float32 if x.device.type == "mps" else torch.float64).clamp(0, 1)
    if rounding == "none":
        return x
    levels = x * 255
    # after a conversion to float32 a level may be slightly below its exact value
    return (levels.round() if rounding == "round" else (levels + 1e-4).floor()) / 255


def channel(x: Tensor, kind: str) -> Tensor:
    """Return the measured channels of RGB: 'rgb' all, 'y' the BT.601 luma as in MATLAB's rgb2ycbcr, 'y8' this luma rounded to 8 bits."""
    if kind == "rgb":
        return x
    weights = x.new_tensor(BT601).view(1, 3, 1, 1)
    luma = (x * weights).sum(1, keepdim=True) + 16
    return (luma.round() if kind == "y8" else luma) / 255


def psnr(output: Tensor, target: Tensor) -> float:
    """10·log10(1 / mean squared error) in dB, at most 100 (equal images)."""
    error = F.mse_loss(output, target).item()
    return 100.0 if error < 1e-10 else -10 * math.log10(error)


def ssim(output: Tensor, target: Tensor) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window 11, sigma 1.5, population variance.

    The mean over channels and all windows inside the image; images smaller than the window are padded with their edge pixels.
    """
    return _similarity(output, target, _gaussian(output), _gaussian(output))[0].mean().item()


def ssim_uniform(output: Tensor, target: Tensor) -> float:
    """Structural similarity with scikit-image's defaults: uniform window 7, sample variance."""
    flat = output.new_full((7,), 1 / 7)
    return _similarity(output, target, flat, flat, sample=49 / 48)[0].mean().item()


def ssim_columns(output: Tensor, target: Tensor) -> float:
    """Return what scikit-image computes if the columns of an image are treated as channels: a window of 7 pixels along each column."""
    return _similarity(output, target, output.new_full((7,), 1 / 7), output.new_ones(1), sample=7 / 6)[0].mean().item()


def ms_ssim(output: Tensor, target: Tensor) -> float:
    """Multi-scale structural similarity (Wang et al. 2003): five scales; UserError for a side below 176 pixels."""
    if min(output.shape[-2:]) < 176:
        raise UserError(f"MS-SSIM needs images of at least 176x176 pixels; this image has {output.shape[-1]}x{output.shape[-2]}")
    result = output.new_ones(output.shape[:2])
    for number, weight in enumerate(SCALES):
        whole, contrast = (x.mean((-2, -1)).clamp_min(0) for x in _similarity(output, target, _gaussian(output), _gaussian(output)))
        result = result * (whole if number == len(SCALES) - 1 else contrast) ** weight
        output, target = F.avg_pool2d(output, 2), F.avg_pool2d(target, 2)
    return result.mean().item()


def mae(output: Tensor, target: Tensor) -> float:
    """Mean absolute error on the 0-255 scale."""
    return (output - target).abs().mean().item() * 255


SSIM = {"gaussian": ssim, "uniform7": ssim_uniform, "columns7": ssim_columns}


def _gaussian(like: Tensor) -> Tensor:
    position = torch.arange(11, dtype=like.dtype, device=like.device) - 5
    window = torch.exp(-position**2 / (2 * 1.5**2))
    return window / window.sum()


def _similarity(a: Tensor, b: Tensor, down: Tensor, across: Tensor, sample: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the maps of SSIM and of its contrast-structure part for a separable window; `sample` scales variances and covariance."""
    missing = max(0, len(across) - a.shape[-1]), max(0, len(down) - a.shape[-2])
    a, b = (F.pad(x, (0, missing[0], 0, missing[1]), mode="replicate") if any(missing) else x for x in (a, b))
    channels = a.shape[1]

    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(x, down.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(x, across.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)

    mean_a, mean_b = blur(a), blur(b)
    variance_a, variance_b = sample * (blur(a**2) - mean_a**2), sample * (blur(b**2) - mean_b**2)
    covariance = sample * (blur(a * b) - mean_a * mean_b)
    contrast = (2 * covariance + C2) / (variance_a + variance_b + C2)
    return contrast * (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1), contrast
