"""Paths and writing of the images of a test: results, side-by-side sheets, maps."""
import glob
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contract import Batch, Item, TestSet
from data import image
from data import source as data_source
from model.method import Method
from report import plots
from restore import ffmpeg
from runtime import experiment, files, process
from runtime.errors import UserError

UNRELATED = (*experiment.INCIDENTAL, "memory", "skip_done", "do_no_harm", "save")      # flags that change no result
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
    """Return whether a value is the name of an image, perhaps in a subfolder, not a path that leads elsewhere."""
    return isinstance(text, str) and "\0" not in text and text != "" and ".." not in Path(text).parts and not Path(text).anchor


def begin(folder: Path, name: str, args, images: TestSet, flags: dict | None = None, kept: Collection[str] = ()) -> None:
    """Delete the images that the last test of a set wrote, except those named in `kept`, and record which images this test writes.

    Only files that a test of this set wrote are deleted, and only of the kinds that this test writes. Raises UserError if a
    result would replace another file in the folder that the set names for its results.
    """
    if process.rank() or not any(getattr(args, kind) for kind in KINDS):
        return
    check_free(folder, name, images, args.format)
    endings = _endings(record(folder, name), images)
    for picture in _earlier(folder, name, images) - set(kept):
        for old in _written(folder, name, results_folder(folder, name, images), picture, args, endings):
            old.unlink(missing_ok=True)
    _record(folder, name, images, args, flags, {item.name for item in images.items})


def end(folder: Path, name: str, args, images: TestSet, flags: dict, pictures: Collection[str]) -> None:
    """Record the images that were restored, so that no later test takes other files in the folder that the set names for results."""
    if images.results and process.rank() == 0 and args.save_results:
        _record(folder, name, images, args, flags, set(pictures))


def _record(folder: Path, name: str, images: TestSet, args, flags: dict | None, pictures: set[str]) -> None:
    written = [item for item in images.items if item.name in pictures]
    files.write_json(folder / f"restored-{name}.json", {"source": images.source, "flags": flags or {}, "format": args.format,
                                                        "pictures": [item.name for item in written],
                                                        "files": [file_name(item) for item in written]})


def file_name(item: Item) -> str:
    """Return the name of an item's input file with its ending: the name of a result may later be that of another file."""
    path = data_source.path_of(item.images["input"]) if "input" in item.images else None
    return path.name if path else ""


def _endings(before: Record, images: TestSet) -> tuple[str, ...]:
    """Return the endings of the results that the last test of a set wrote; all, if they are in a folder of the experiment."""
    known = (*image.FORMATS, *ffmpeg.ENDINGS)
    return (before["format"],) if images.results and before.get("format") in known else known


def _earlier(folder: Path, name: str, images: TestSet) -> set[str]:
    """Return the names of the images that the last test of a set wrote into the same folder."""
    before = record(folder, name)
    known = isinstance(before.get("flags"), dict) and before["flags"].get("results", "") == _place(images)
    return set(before["pictures"]) if known else set()


def _place(images: TestSet) -> str:
    return str(images.results.resolve()) if images.results else ""


def check_free(folder: Path, name: str, images: TestSet, ending: str) -> None:
    """Raise UserError if a result would replace a file that no test of the set wrote, in the folder that the set names for its results."""
    earlier = _earlier(folder, name, images) if ending in _endings(record(folder, name), images) else set()
    for picture in sorted({item.name for item in images.items if images.results} - earlier, key=files.natural):
        path = result_path(results_folder(folder, name, images), picture, ending)
        if path.exists() or path.is_symlink():
            raise UserError(f"{path} exists, and this program did not write it; move it away, or name another place with -o")


def conditions(images: TestSet, args, weights: str) -> dict:
    """Return the flags that a result depends on, the path of the weights, and the folder of the results if the set names one."""
    flags = {key: value for key, value in args.flags.items() if key not in UNRELATED} | {"weights": str(Path(weights).resolve())}
    return flags | ({"results": _place(images)} if images.results else {})


def is_newer(result: Path, source: Path, weights: str) -> bool:
    """Return whether a result exists and is newer than its source and the weights."""
    try:
        return result.stat().st_mtime_ns > max(source.stat().st_mtime_ns, Path(weights).stat().st_mtime_ns)
    except OSError:
        return False


def results_folder(folder: Path, name: str, images: TestSet) -> Path:
    """Return the folder for the restored images of a set."""
    return images.results or folder / f"results-{name}"


def _written(folder: Path, name: str, results: Path, picture: str, args, endings: Collection[str]) -> list[Path]:
    """Return the files that a test may have written for an image, of the kinds that the flags select, results with these endings."""
    found = []
    if args.save_results:
        found = [result_path(results, picture, ending) for ending in endings]
        found.append(before_path(folder, name, picture))
    found += [sheet_path(folder, name, picture)] if args.save_gt else []
    return found + (list((folder / f"maps-{name}").glob(f"{glob.escape(picture)}-*.png")) if args.save_maps else [])


def result_path(results: Path, picture: str, ending: str = "png") -> Path:
    """Return the path of the result of an image, whose name may contain subfolders."""
    return results / f"{picture}.{ending}"


def before_path(folder: Path, name: str, picture: str) -> Path:
    """Return the path of a copy of the unrestored image in full size, for the result page."""
    return folder / f"before-{name}" / f"{picture}.png"


def sheet_path(folder: Path, name: str, picture: str) -> Path:
    """Return the path of the sheet with input, result and target side by side."""
    return folder / f"compare-{name}" / f"{picture}.png"


def save_maps(method: Method, x: Tensor, name: str, picture: str, args, folder: Path) -> None:
    """Save the other outputs of the network for x (1, 3, H, W): images as PNG, maps of numbers as heat maps with a scale."""
    with torch.inference_mode(), process.autocast(args.test_precision), process.exact_convolutions():
        shown = method.shown(x.to(process.device()))
    for key, value in shown.items():
        path = folder / f"maps-{name}" / f"{picture}-{key}.png"
        files.make_folder(path.parent)
        if key.startswith(method.maps):
            plots.heat_map(path, value[0].float().mean(0).cpu().numpy(), f"{key}, mean of the channels")
        else:
            image.write(path, image.to_array(value[0].float()))


def save_images(name: str, batch: Batch, output: Tensor, args, folder: Path) -> None:
    """Save a scored result (1, 3, H, W) as PNG, and the sheet of input, result and targets, if the flags select them."""
    restored = image.to_array(output[0])
    if args.save_results:
        path = result_path(folder / f"results-{name}", batch.name[0])
        files.make_folder(path.parent)
        image.write(path, restored)
    if args.save_gt:
        sides = [image.to_array(batch.input[0]), restored, *(image.to_array(target[0]) for target in batch.targets.values())]
        path = sheet_path(folder, name, batch.name[0])
        files.make_folder(path.parent)
        image.write(path, np.hstack(sides))
