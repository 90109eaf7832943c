"""Paths and writing of the images of a test: results, side-by-side sheets, maps."""
import glob
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contract import Batch
from data import image
from model.method import Method
from report import plots
from runtime import files, process

KINDS = ("save_results", "save_gt", "save_maps")
Record = dict[str, Any]                   # the contents of restored-<set>.json: source, flags and pictures, the names of the images


def name_for(folder: Path, name: str, source: str) -> str:
    """Return the name under which a set's results are written: `name`, with a number if it belongs to another folder or data set."""
    number, free = 1, name
    while record(folder, free).get("source", source) != source:
        number += 1
        free = f"{name}_{number}"
    return free


def record(folder: Path, name: str) -> Record:
    """Return what the last test of a set wrote, {} if that is unknown."""
    try:
        found = json.loads((folder / f"restored-{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    fits = isinstance(found, dict) and isinstance(found.get("pictures"), list) and all(map(_is_name, found["pictures"]))
    return found if fits else {}


def _is_name(text: object) -> bool:
    """Return whether a value is the name of an image, not a path that leads elsewhere."""
    return isinstance(text, str) and "\0" not in text and text not in ("", "..") and Path(text).name == text


def begin(folder: Path, name: str, args, pictures: list[str], source: str = "", flags: dict | None = None,
          kept: Collection[Path] = ()) -> None:
    """Delete the images that the last test of a set wrote, except `kept`, and record which images this test writes.

    Only files that a test of this set wrote are deleted, and only of the kinds that this test writes.
    """
    if process.rank() or not any(getattr(args, kind) for kind in KINDS):
        return
    for picture in record(folder, name).get("pictures", ()):
        for old in _written(folder, name, picture, args):
            if old not in kept and old.parent.parent == folder:
                old.unlink(missing_ok=True)
    files.write_json(folder / f"restored-{name}.json", {"source": source, "flags": flags or {}, "pictures": pictures})


def _written(folder: Path, name: str, picture: str, args) -> list[Path]:
    """Return the files that a test may have written for an image, of the kinds that the flags select."""
    found = [result_path(folder, name, picture, ending) for ending in image.FORMATS] if args.save_results else []
    found += [sheet_path(folder, name, picture)] if args.save_gt else []
    return found + (list((folder / f"maps-{name}").glob(f"{glob.escape(picture)}-*.png")) if args.save_maps else [])


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
