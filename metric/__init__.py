"""PSNR and SSIM of (B, 3, H, W) images in [0, 1], and the protocol that says how a number was measured."""
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

BT601 = (65.481, 128.553, 24.966)         # luma of R, G, B in [0, 1] on the 16-235 scale


@dataclass(frozen=True)
class Protocol:
    """How restored images are compared with the truth."""
    name: str
    version: int
    rounding: str                         # 'round': to 8 bits before measuring
    border: int                           # pixels left out at each side
    size: str                             # 'pad': the network pads, the measured image has the input's size
    ssim: str

    def settings(self) -> dict:
        """Return the settings as stored beside every number."""
        return asdict(self)


DEFAULT = Protocol("default", 1, rounding="round", border=0, size="pad", ssim="Gaussian 11x11, sigma 1.5, no padding")


def measure(output: Tensor, target: Tensor) -> dict[str, float]:
    """Return psnr and ssim (RGB) and psnr_y and ssim_y (BT.601 luma, float) of one pair by the default protocol.

    Both are (1, 3, H, W) in [0, 1]; the output is rounded to 8 bits. PSNR in dB, 100 for equal images.
    """
    output, target = (x.double() for x in (quantise(output), target))
    output_y, target_y = luma(output), luma(target)
    return {"psnr": psnr(output, target), "ssim": ssim(output, target),
            "psnr_y": psnr(output_y, target_y), "ssim_y": ssim(output_y, target_y)}


def quantise(x: Tensor) -> Tensor:
    """Return x clipped to [0, 1] and rounded to the nearest of 256 levels."""
    return x.float().clamp(0, 1).mul(255).round().div(255)


def luma(x: Tensor) -> Tensor:
    """Return the BT.601 luma (B, 1, H, W) of RGB in [0, 1], as MATLAB's rgb2ycbcr without its rounding: 16/255 to 235/255."""
    weights = x.new_tensor(BT601).view(1, 3, 1, 1)
    return ((x * weights).sum(1, keepdim=True) + 16) / 255


def psnr(output: Tensor, target: Tensor) -> float:
    """Return 10·log10(1 / mean squared error) in dB, at most 100."""
    error = F.mse_loss(output, target).item()
    return min(100.0, -10 * torch.tensor(max(error, 1e-12), dtype=torch.float64).log10().item())


def ssim(output: Tensor, target: Tensor) -> float:
    """Return the mean structural similarity over pixels and channels (Wang et al. 2004): Gaussian window 11, sigma 1.5.

    Only windows inside the image count; images smaller than the window are continued by their edge.
    """
    short = [max(0, 11 - side) for side in output.shape[-2:]]
    if any(short):
        output, target = (F.pad(x, (0, short[1], 0, short[0]), mode="replicate") for x in (output, target))
    position = torch.arange(11, dtype=output.dtype, device=output.device) - 5
    window = torch.exp(-position**2 / (2 * 1.5**2))
    window = window / window.sum()
    channels = output.shape[1]

    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(x, window.view(1, 1, 11, 1).expand(channels, 1, 11, 1), groups=channels)
        return F.conv2d(x, window.view(1, 1, 1, 11).expand(channels, 1, 1, 11), groups=channels)

    mean_a, mean_b = blur(output), blur(target)
    variance_a, variance_b = blur(output**2) - mean_a**2, blur(target**2) - mean_b**2
    covariance = blur(output * target) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)
                  / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)))
    return similarity.mean().item()
