"""Paths and writing of the images of a test: results, side-by-side sheets, maps."""
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from contract import Batch
from data import image
from model.method import Method
from report import plots
from runtime import files, process

KINDS = (("save_results", "results"), ("save_gt", "compare"), ("save_maps", "maps"))


def clear(folder: Path, name: str, args, kept: Collection[Path] = ()) -> None:
    """Delete the images of an earlier test from the output directories of this test, except `kept`."""
    if process.rank() == 0:
        for wanted, kind in KINDS:
            place = folder / f"{kind}-{name}"
            for old in place.iterdir() if getattr(args, wanted) and place.is_dir() else ():
                if old.suffix.removeprefix(".") in image.FORMATS and old not in kept:
                    old.unlink()


def result_path(folder: Path, name: str, picture: str, ending: str = "png") -> Path:
    """Return the path of the result of an image of the test set `name`."""
    return folder / f"results-{name}" / f"{picture}.{ending}"


def sheet_path(folder: Path, name: str, picture: str) -> Path:
    """Return the path of the sheet with input, result and target side by side."""
    return folder / f"compare-{name}" / f"{picture}.png"


def save_maps(method: Method, x: Tensor, name: str, picture: str, args, folder: Path) -> None:
    """Save the other outputs of the network for x (1, 3, H, W): images as PNG, maps of numbers as heat maps with a scale."""
    with torch.inference_mode(), process.autocast(args.test_precision), process.exact_convolutions():
        shown = method.shown(x.to(process.device()))
    place = files.make_folder(folder / f"maps-{name}")
    for key, value in shown.items():
        if key.startswith(method.maps):
            plots.heat_map(place / f"{picture}-{key}.png", value[0].float().mean(0).cpu().numpy(), f"{key}, mean of the channels")
        else:
            image.write(place / f"{picture}-{key}.png", image.to_array(value[0].float()))


def save_images(name: str, batch: Batch, output: Tensor, args, folder: Path) -> None:
    """Save a scored result (1, 3, H, W) as PNG, and the sheet of input, result and targets, if the flags select them."""
    restored = image.to_array(output[0])
    if args.save_results:
        path = result_path(folder, name, batch.name[0])
        files.make_folder(path.parent)
        image.write(path, restored)
    if args.save_gt:
        sides = [image.to_array(batch.input[0]), restored, *(image.to_array(target[0]) for target in batch.targets.values())]
        path = sheet_path(folder, name, batch.name[0])
        files.make_folder(path.parent)
        image.write(path, np.hstack(sides))
