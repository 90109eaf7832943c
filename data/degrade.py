"""Seeded synthesis of degraded images from clean photos; input and output are (H, W, 3) float arrays in [0, 1]."""
import numpy as np
import scipy  # imports its parts when they are used

FLAKE_LAYERS = (                  # far to near: radius in pixels, share of the area, opacity, length of the motion blur
    (0.7, 0.060, 0.55, 2),
    (1.4, 0.050, 0.75, 4),
    (2.6, 0.035, 0.90, 7),
    (5.0, 0.012, 0.85, 13),
)
RAIN_LAYERS = (                   # far to near: width and length in pixels, drops per pixel, opacity
    (0.45, 11, 0.0080, 0.22),
    (0.60, 21, 0.0030, 0.36),
    (0.90, 37, 0.0008, 0.48),
)


def noise(image: np.ndarray, rng: np.random.Generator, sigma: float = 25.0) -> np.ndarray:
    """Add Gaussian noise; sigma is on the 0-255 scale."""
    return np.clip(image + rng.normal(0, sigma / 255, image.shape), 0, 1)


def haze(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Add haze by the scattering model J·t + A·(1 − t), t = exp(−β·depth), with a depth that increases towards the top."""
    height, width = image.shape[:2]
    ramp = np.linspace(1.0, 0.15, height)[:, None] + rng.uniform(-0.15, 0.15) * np.linspace(-1, 1, width)[None]
    depth = np.clip(ramp + 0.08 * _clouds((height, width), rng), 0, None)
    transmission = np.exp(-strength * rng.uniform(0.35, 0.55) * depth)[..., None]
    air = rng.uniform(0.72, 0.85) + rng.uniform(-0.02, 0.02, 3)
    return scattered(image, transmission, air)


def scattered(image: np.ndarray, transmission: np.ndarray, air: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) behind haze of this transmission (H, W, 1) with air light (3,)."""
    return np.clip(image * transmission + air * (1 - transmission), 0, 1)


def smoothed(plane: np.ndarray, sigma: float) -> np.ndarray:
    """Return an (H, W) plane after a Gaussian blur; sigma in pixels."""
    return scipy.ndimage.gaussian_filter(plane, sigma)


def rain(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Add bright rain streaks in one main direction, near streaks longer and wider, and a thin veil."""
    main = rng.uniform(-25, 25)                                   # degrees from the vertical
    streaks = np.zeros(image.shape[:2])
    for width, length, density, opacity in RAIN_LAYERS:
        drops = (rng.random(streaks.shape) < density * strength) * rng.uniform(0.2, 1.0, streaks.shape)
        lines = scipy.ndimage.convolve(scipy.ndimage.gaussian_filter(drops, width), _line(length, main + rng.normal(0, 1.5)), mode="wrap")
        peak = 0.35 / (width * length)                            # the peak of a single drop of brightness 1
        soft = scipy.ndimage.gaussian_filter(lines / peak, 0.4)
        streaks = 1 - (1 - streaks) * (1 - opacity * np.clip(soft, 0, 1))
    return behind_streaks(image, streaks[..., None], 0.05 * strength)


def behind_streaks(image: np.ndarray, alpha: np.ndarray, veil: float, tone: float = 0.90) -> np.ndarray:
    """Return an image (H, W, 3) behind a grey veil and, nearer, streaks of this opacity (H, W, 1) and brightness."""
    return np.clip((image * (1 - veil) + 0.75 * veil) * (1 - alpha) + tone * alpha, 0, 1)


def snow(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Add snow: flakes of several sizes and depths with motion blur, and a veil.

    Returns (snowy image, mask); the mask shows only the flakes on black, in RGB, as in Snow100K and CSD.
    """
    wind = rng.uniform(-35, 35)                                   # degrees from the vertical
    clear = np.ones(image.shape[:2])                              # the part of each pixel that no flake covers
    for radius, share, opacity, fall in FLAKE_LAYERS:
        flakes = _flakes(image.shape[:2], radius, share * strength * rng.uniform(0.7, 1.3), rng)
        length = max(1, round(fall * rng.uniform(0.6, 1.4))) | 1
        blurred = scipy.ndimage.convolve(flakes, _line(length, wind + rng.normal(0, 6)), mode="wrap")
        np.clip(blurred, 0, 1, out=blurred)
        clear *= 1 - opacity * blurred
    tone = rng.uniform(0.90, 1.0) + np.array([-0.02, 0.0, 0.02]) * rng.uniform(0, 1)      # a cool white
    shade = np.clip(1 + 0.06 * _clouds(image.shape[:2], rng), 0.8, 1.1)[..., None]
    mask = np.clip(tone * shade, 0, 1)
    mask *= (1 - clear)[..., None]
    veil = rng.uniform(0.02, 0.06) * strength * np.linspace(1.2, 0.8, image.shape[0])[:, None, None]
    return behind_flakes(image, mask, clear[..., None], veil), mask


def behind_flakes(image: np.ndarray, mask: np.ndarray, clear: np.ndarray, veil: np.ndarray | float) -> np.ndarray:
    """Return an image (H, W, 3) behind a veil and, nearer, flakes (H, W, 3) that leave the share `clear` (H, W, 1) of a pixel free."""
    snowy = image * (1 - veil)                                    # in place from here on: a large photo takes hundreds of megabytes
    snowy += 0.85 * veil
    snowy *= clear
    snowy += mask
    return np.clip(snowy, 0, 1, out=snowy)


def _flakes(shape: tuple[int, int], radius: float, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return an (H, W) map in [0, 1] of soft, slightly irregular blobs of about this radius, covering about `share` of the area."""
    count = share / (np.pi * radius**2)
    seeds = (rng.random(shape) < count) * rng.uniform(0.5, 1.5, shape)
    blobs = scipy.ndimage.gaussian_filter(seeds, 0.6 * radius, mode="wrap")
    blobs *= 2 * np.pi * (0.6 * radius) ** 2                      # a single seed peaks at its own value
    ragged = scipy.ndimage.gaussian_filter(rng.standard_normal(shape), 0.5 * radius, mode="wrap")
    ragged *= 0.5 * radius
    ragged += 1
    ragged *= blobs
    ragged -= 0.2
    ragged /= 0.35
    return np.clip(ragged, 0, 1, out=ragged)


def _line(length: int, degrees: float) -> np.ndarray:
    """Return a blur kernel that sums to 1: a line through the centre at an angle of `degrees` to the vertical."""
    side = length | 1
    kernel = np.zeros((side, side))
    reach = np.linspace(-(side // 2), side // 2, 4 * side)
    rows, columns = reach * np.cos(np.radians(degrees)), reach * np.sin(np.radians(degrees))
    np.add.at(kernel, (np.rint(rows).astype(int) + side // 2, np.rint(columns).astype(int) + side // 2), 1)
    return kernel / kernel.sum()


def _clouds(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a smooth random (H, W) map around 0: 6x6 standard normal values, enlarged by cubic splines."""
    coarse = rng.standard_normal((6, 6))
    rows, columns = (scipy.ndimage.zoom(np.eye(6), (side / 6, 1), order=3) for side in shape)     # one axis at a time: fast on large photos
    return rows @ coarse @ columns.T
