"""Sources of images: a file, an array in memory, or a view of one (a half, the centre, with noise or weather)."""
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contract import Item
from data import headers, image, weather
from runtime.errors import UserError


class View(NamedTuple):
    """A modified view of a source: 'left' or 'right' half, 'centre' (height, width), or what `degrade` adds (amount, *seed).

    'snow mask' is the mask of 'snow'. 'drawn X' (low, high) is the unchanged source; the loader draws an amount for each crop and
    adds X to it.
    """
    of: "Source"
    how: str
    value: tuple[float, ...] = ()


Source = Path | str | View | np.ndarray          # a path, also as text


def path_of(source: Source) -> Path | None:
    """Return the path of the file of a source, None for an array."""
    if isinstance(source, View):
        return path_of(source.of)
    return Path(source) if isinstance(source, str) else source if isinstance(source, Path) else None


def size(source: Source) -> tuple[int, int]:
    """Return (height, width) of a source from its file's header; UserError if the file is not an image."""
    if isinstance(source, np.ndarray):
        return source.shape[:2]
    if not isinstance(source, View):
        return headers.size(source)
    if source.how == "centre":
        return int(source.value[0]), int(source.value[1])
    height, width = size(source.of)
    return height, width // 2 if source.how in SIDES else width


def read(source: Source, read_file: Callable[[Path | str], np.ndarray] = image.read) -> np.ndarray:
    """Return a source's pixels, (H, W, 3) uint8, float32 for float noise; `read_file` returns the pixels of a file, decoded or cached."""
    if isinstance(source, np.ndarray):
        return source
    if not isinstance(source, View):
        return read_file(source)
    whole = read(source.of, read_file)
    if source.how.startswith(DRAWN):
        return whole
    half = whole.shape[1] // 2
    if source.how == "centre":
        height, width = size(source)
        top, left = (whole.shape[0] - height) // 2, (whole.shape[1] - width) // 2
        return whole[top:top + height, left:left + width]
    if source.how in SIDES:
        return whole[:, :half] if source.how == "left" else whole[:, half:2 * half]
    amount, *seed = source.value
    kind, mask = source.how.removesuffix(MASK), source.how.endswith(MASK)
    return degrade(kind, whole, amount, np.random.default_rng([int(each) for each in seed]))["mask" if mask else "input"]


def degrade(kind: str, pixels: np.ndarray, amount: float, rng: np.random.Generator,
            height: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return the 'input', of snow also the 'mask', for clean uint8 pixels; the amount is a noise level (0-255 scale) or a strength.

    height: the height of each pixel in the photo if the pixels are a crop of it (see data/weather.py).
    """
    if kind in NOISES:
        return {"input": NOISES[kind](pixels, amount, rng)}
    return weather.KINDS[kind](pixels, amount, rng, height)


def draw(view: View, pixels: np.ndarray, height: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return `degrade` of a crop for a view 'drawn X', with a drawn amount; 'any' draws one of noise (any level) and the weathers."""
    kind, (low, high) = view.how.removeprefix(DRAWN), view.value
    if kind == "any":
        kind = ("noise", *weather.KINDS)[rng.integers(1 + len(weather.KINDS))]
        low, high = ANY_NOISE if kind == "noise" else (low, high)
    amount = int(rng.integers(int(low), int(high), endpoint=True)) if kind in NOISES else rng.uniform(low, high)
    return degrade(kind, pixels, amount, rng, height)


def noisy(pixels: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return uint8 pixels with Gaussian noise (sigma on the 0-255 scale), clipped and truncated to 8 bits as in the papers' test code."""
    return np.clip(pixels + rng.normal(0, sigma, pixels.shape), 0, 255).astype(np.uint8)


def float_noisy(pixels: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return float32 pixels with the same noise, neither clipped nor rounded: values below 0 and above 255 occur."""
    return (pixels + rng.normal(0, sigma, pixels.shape)).astype(np.float32)


NOISES = {"noise": noisy, "float noise": float_noisy}
SIDES = ("left", "right")
DRAWN, MASK = "drawn ", " mask"           # how 'drawn X' begins and 'snow mask' ends
ANY_NOISE = (0, 55)                       # range of the noise levels that 'any' draws


def check_sizes(items: list[Item]) -> None:
    """Raise UserError if the header of a file is damaged or the images of an item differ in size."""
    for item in items:
        sizes = {key: size(source) for key, source in item.images.items() if not isinstance(source, np.ndarray)}
        if len(set(sizes.values())) > 1:
            text = ", ".join(f"{path_of(item.images[key])} is {width}x{height}" for key, (height, width) in sizes.items())
            raise UserError(f"the images of a pair must have one size: {text} (width x height)")
