"""The embedded data sets: the colour photos of the package scikit-image, degraded by data/degrade.py.

Five scenes: three for training, two (a cat, a cup of coffee) for testing. Nothing is downloaded.
"""
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from contract import Item
from data import degrade

WEATHERS = ("snow", "rain", "haze", "noise")
VARIANTS = {"train": 8, "test": 2}        # number of degraded versions of each photo, each with its own seed


def opener(weather: str) -> Callable[[Path, str], list[Item]]:
    """Return the function that lists the items of one weather; its first argument, the folder of the data set, is not used."""
    return functools.partial(_weather, weather)


def everything(_: Path, split: str) -> list[Item]:
    """List the items of all four weathers; `kind` is the index of the weather in WEATHERS."""
    return [item._replace(kind=kind) for kind, weather in enumerate(WEATHERS) for item in _weather(weather, _, split)]


def photos(split: str) -> dict[str, np.ndarray]:
    """Return the clean photos of 'train' or 'test', (H, W, 3) uint8; no scene is in both."""
    from skimage import data  # imported here because it is slow and only the Demo sets need it
    if split == "test":
        return {"cat": data.chelsea(), "coffee": data.coffee()}
    left, right, _ = data.stereo_motorcycle()             # two views of one scene
    return {"astronaut": data.astronaut(), "rocket": data.rocket(), "motorcycle_left": left, "motorcycle_right": right}


@functools.lru_cache
def _weather(weather: str, _: Path, split: str) -> list[Item]:
    items = []
    for number, (name, photo) in enumerate(photos(split).items()):
        for variant in range(VARIANTS[split]):
            rng = np.random.default_rng((WEATHERS.index(weather), split == "test", number, variant))
            images = {"image": photo}
            if weather == "snow":
                snowy, mask = degrade.snow(photo / 255, rng)
                images |= {"input": _levels(snowy), "mask": _levels(mask)}
            else:
                images["input"] = _levels(getattr(degrade, weather)(photo / 255, rng))
            items.append(Item(f"{name}_{weather}{variant + 1}", images))
    return items


def _levels(image: np.ndarray) -> np.ndarray:
    return np.rint(image * 255).astype(np.uint8)
