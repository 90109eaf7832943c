"""Strips of degraded, restored and clean photos of scikit-image, for the gallery and the cards of the zoo."""
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data import degrade, demo, image
from restore.restorer import Restorer
from tool.demo import psnr

PHOTOS = ("cat", "astronaut", "rocket")
SIDE = 256                                # side in pixels of the part that is shown in full size


class Strip(NamedTuple):
    """What a network did to a photo: the weather, the name of the photo, its PSNR in dB in words before and after, the gain, pixels."""
    kind: str
    photo: str
    words: str
    gain: float
    pixels: np.ndarray


def strips(restorer: Restorer, kinds: tuple[str, ...]) -> Iterator[Strip]:
    """Yield a strip for each weather ('clean' for none) and photo; no network of the zoo was trained on these photos."""
    photos = demo.photos("train") | demo.photos("test")
    for kind in kinds:
        for number, name in enumerate(PHOTOS):
            clean = photos[name]
            before = degraded(kind, clean, number)
            after = image.to_array(restorer(image.to_tensor(before)[None])[0])
            words = f"{name}, {kind}: {value(before, clean)} before, {value(after, clean)} after"
            gain = 0.0 if kind == "clean" else psnr(after, clean) - psnr(before, clean)
            yield Strip(kind, name, words, gain, beside(before, after, clean))


def degraded(kind: str, clean: np.ndarray, number: int) -> np.ndarray:
    """Return a photo (H, W, 3) uint8 with the noise or weather of the embedded sets, or unchanged."""
    if kind == "clean":
        return clean
    result = getattr(degrade, kind)(clean / 255, np.random.default_rng((9, number)))
    return np.rint((result[0] if kind == "snow" else result) * 255).astype(np.uint8)


def beside(*images: np.ndarray) -> np.ndarray:
    """Return the middle SIDE x SIDE pixels of images side by side."""
    top, left = ((side - SIDE) // 2 for side in images[0].shape[:2])
    return np.hstack([np.pad(each[top:top + SIDE, left:left + SIDE], ((0, 4), (0, 4), (0, 0)), constant_values=255) for each in images])


def value(image: np.ndarray, clean: np.ndarray) -> str:
    """Return the PSNR of an image as text."""
    return "equal" if np.array_equal(image, clean) else f"{psnr(image, clean):.2f} dB"
