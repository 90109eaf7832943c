"""Sources of images: a file, an array in memory, or a view of a file (a half, the centre, with noise)."""
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contract import Item
from data import image
from runtime.errors import UserError


class View(NamedTuple):
    """A modified view of a file: 'left' or 'right' half, 'centre' (height, width), 'noise' or 'float noise' (sigma, *seed).

    'drawn noise' and 'drawn float noise' (low, high) are the unchanged file; the loader draws a sigma for each crop and adds
    noise to it. For the kinds of noise see the functions `noisy` and `float_noisy`.
    """
    path: Path
    how: str
    value: tuple[int, ...] = ()


Source = Path | View | np.ndarray


def path_of(source: Source) -> Path | None:
    """Return the path of the file of a source, None for an array."""
    return source.path if isinstance(source, View) else source if isinstance(source, Path) else None


def size(source: Source) -> tuple[int, int]:
    """Return (height, width) of a source from its file's header; UserError if the file is not an image."""
    if isinstance(source, np.ndarray):
        return source.shape[:2]
    if not isinstance(source, View):
        return image.size(source)
    height, width = image.size(source.path)
    return {"left": (height, width // 2), "right": (height, width // 2), "centre": source.value}.get(source.how, (height, width))


def read(source: Source, read_file: Callable[[Path], np.ndarray] = image.read) -> np.ndarray:
    """Return a source's pixels, (H, W, 3) uint8, float32 for float noise; `read_file` returns the pixels of a file, decoded or cached."""
    if isinstance(source, np.ndarray):
        return source
    if isinstance(source, Path):
        return read_file(source)
    whole = read_file(source.path)
    if source.how in NOISES:
        sigma, *seed = source.value
        return NOISES[source.how](whole, sigma, np.random.default_rng(seed))
    if source.how.startswith("drawn "):
        return whole
    half = whole.shape[1] // 2
    if source.how == "centre":
        height, width = source.value
        top, left = (whole.shape[0] - height) // 2, (whole.shape[1] - width) // 2
        return whole[top:top + height, left:left + width]
    return whole[:, :half] if source.how == "left" else whole[:, half:2 * half]


def noisy(pixels: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return uint8 pixels with Gaussian noise (sigma on the 0-255 scale), clipped and truncated to 8 bits as in the papers' test code."""
    return np.clip(pixels + rng.normal(0, sigma, pixels.shape), 0, 255).astype(np.uint8)


def float_noisy(pixels: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return float32 pixels with the same noise, neither clipped nor rounded: values below 0 and above 255 occur."""
    return (pixels + rng.normal(0, sigma, pixels.shape)).astype(np.float32)


NOISES = {"noise": noisy, "float noise": float_noisy}


def check_sizes(items: list[Item]) -> None:
    """Raise UserError if the header of a file is damaged or the images of an item differ in size."""
    for item in items:
        sizes = {key: size(source) for key, source in item.images.items() if not isinstance(source, np.ndarray)}
        if len(set(sizes.values())) > 1:
            text = ", ".join(f"{path_of(item.images[key])} is {width}x{height}" for key, (height, width) in sizes.items())
            raise UserError(f"the images of a pair must have one size: {text} (width x height)")
