"""Where the pictures of a test go: results, sheets side by side, maps."""
from collections.abc import Collection
from pathlib import Path

import numpy as np
from torch import Tensor

from contract import Batch
from data import image
from model.method import Method
from report import plots
from runtime import files, process

KINDS = (("save_results", "results"), ("save_gt", "compare"), ("save_maps", "maps"))


def clear(folder: Path, name: str, args, kept: Collection[Path] = ()) -> None:
    """Take the pictures of an earlier test out of the folders that this one fills, but for those that are kept."""
    if process.rank() == 0:
        for wanted, kind in KINDS:
            place = folder / f"{kind}-{name}"
            for old in place.iterdir() if getattr(args, wanted) and place.is_dir() else ():
                if old.suffix.removeprefix(".") in image.FORMATS and old not in kept:
                    old.unlink()


def save_maps(name: str, picture: str, method: Method, x: Tensor, args, folder: Path) -> None:
    """Save what else the network shows for an image: pictures as they are, maps of numbers in colours with a scale."""
    with process.autocast(args.test_precision), process.exact_convolutions():
        shown = method.shown(x)
    place = files.folder(folder / f"maps-{name}")
    for key, value in shown.items():
        if key.startswith(method.maps):
            plots.heat_map(place / f"{picture}-{key}.png", value[0].float().mean(0).cpu().numpy(), f"{key}, mean of the channels")
        else:
            image.write(place / f"{picture}-{key}.png", image.to_array(value[0].float()))


def save_images(name: str, batch: Batch, output: Tensor, args, folder: Path) -> None:
    restored = image.to_array(output[0])
    if args.save_results:
        image.write(files.folder(folder / f"results-{name}") / f"{batch.name[0]}.png", restored)
    if args.save_gt:
        sides = [image.to_array(batch.input[0]), restored, *(image.to_array(target[0]) for target in batch.targets.values())]
        image.write(files.folder(folder / f"compare-{name}") / f"{batch.name[0]}.png", np.hstack(sides))
