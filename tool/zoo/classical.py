"""Classical restoration without learning, to compare the networks of the zoo with; images are (H, W, 3) floats in [0, 1]."""
from collections.abc import Callable

import numpy as np
import scipy
from skimage import restoration

DARK, LEAST = 15, 0.1                     # dark channel: side of the window, smallest transmission
REFINE, SMOOTH = 41, 1e-3                 # guided filter of the transmission: side of the window, regularisation


def noise_level(image: np.ndarray) -> float:
    """Return the estimated noise level of an image, in [0, 1]: the mean response to a mask that ignores most structure (Immerkaer 1996)."""
    mask = np.outer((1, -2, 1), (1, -2, 1))[..., None]
    return float(np.sqrt(np.pi / 2) * np.abs(scipy.ndimage.convolve(image, mask)).mean() / 6)


def non_local_means(image: np.ndarray) -> np.ndarray:
    """Return scikit-image's non-local means with the estimated noise level."""
    sigma = noise_level(image)
    return restoration.denoise_nl_means(image, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, fast_mode=True, channel_axis=-1)


def total_variation(image: np.ndarray) -> np.ndarray:
    """Return scikit-image's denoising by total variation (Chambolle), weighted by the estimated noise level."""
    return restoration.denoise_tv_chambolle(image, weight=noise_level(image), channel_axis=-1)


def median(side: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a median filter with windows of side x side pixels."""
    return lambda image: scipy.ndimage.median_filter(image, (side, side, 1))


def opening(side: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a morphological opening, which removes what is bright and smaller than side x side pixels."""
    return lambda image: scipy.ndimage.grey_opening(image, (side, side, 1))


def self_guided(side: int, smooth: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the guided filter with the image itself as guide."""
    return lambda image: np.dstack([guided(plane, plane, side, smooth) for plane in np.moveaxis(image, -1, 0)])


def guided(guide: np.ndarray, image: np.ndarray, side: int, smooth: float) -> np.ndarray:
    """Return the guided filter of an image (H, W) by a guide (H, W) with square windows (He, Sun, Tang, ECCV 2010)."""
    def mean(x: np.ndarray) -> np.ndarray:
        return scipy.ndimage.uniform_filter(x, side, mode="nearest")
    middle, level = mean(guide), mean(image)
    slope = (mean(guide * image) - middle * level) / (mean(guide * guide) - middle**2 + smooth)
    return mean(slope) * guide + mean(level - slope * middle)


def dark_channel(image: np.ndarray) -> np.ndarray:
    """Return the dehazed image by the dark channel prior, its transmission refined by a guided filter (He, Sun, Tang, CVPR 2009)."""
    dark = scipy.ndimage.minimum_filter(image.min(-1), DARK)
    brightest = np.argsort(dark, axis=None)[-max(dark.size // 1000, 1):]
    air = image.reshape(-1, 3)[brightest].mean(0)
    haze = scipy.ndimage.minimum_filter((image / np.maximum(air, 1e-3)).min(-1), DARK)
    transmission = guided(image.mean(-1), 1 - 0.95 * haze, REFINE, SMOOTH)
    return (image - air) / np.maximum(transmission, LEAST)[..., None] + air


METHODS: dict[str, dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    "noise": {"non-local means": non_local_means, "total variation": total_variation},
    "rain": {"median 3x3": median(3), "opening 3x3": opening(3), "guided filter": self_guided(5, 0.003)},
    "snow": {"median 5x5": median(5), "opening 3x3": opening(3), "opening 5x5": opening(5)},
    "haze": {"dark channel": dark_channel},
    "clean": {},
}
