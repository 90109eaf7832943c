"""Paths and writing of the images of a test: results, side-by-side sheets, maps."""
import glob
import json
import os
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
from restore import ffmpeg, written
from restore.written import Written
from runtime import experiment, files, process, zoo
from runtime.errors import UserError

UNRELATED = (*experiment.INCIDENTAL, "memory", "skip_done", "do_no_harm", "save")      # flags that change no result
KINDS = ("save_results", "save_gt", "save_maps")
ENDINGS = (*image.FORMATS, *ffmpeg.ENDINGS)
Record = dict[str, Any]                   # the contents of restored-<set>.json: source, flags, and pictures, the names of all images


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
    before = earlier(folder, name, images)
    for picture in (set(record(folder, name)["pictures"]) if _same_place(folder, name, images) else set()) - set(kept):
        for old in _made(folder, name, images, picture, before.get(picture), args):
            old.unlink(missing_ok=True)
    written.keep(folder, name, [each for picture, each in before.items() if picture in kept or not args.save_results])
    files.write_json(folder / f"restored-{name}.json", {"source": images.source, "flags": flags or {}, "format": args.format,
                                                        "pictures": [item.name for item in images.items]})


def earlier(folder: Path, name: str, images: TestSet) -> dict[str, Written]:
    """Return the results that the last test of a set wrote into the same folder, by the names of their images."""
    found, before = written.known(folder, name), record(folder, name)
    if not _same_place(folder, name, images):
        return {}
    return _unlisted(before, results_folder(folder, name, images), bool(images.results)) if found is None else found


def _unlisted(before: Record, results: Path, chosen: bool) -> dict[str, Written]:
    """Return the same for a record of version 0.2.0 or older, which names images and no results.

    chosen: the set names the folder of its results, where files of other endings may be somebody else's.
    """
    endings = (before["format"],) if chosen and before.get("format") in ENDINGS else ENDINGS
    names = before["files"] if isinstance(before.get("files"), list) else []
    sources = dict(zip(before["pictures"], names))
    return {picture: Written.of(path, picture, str(sources.get(picture, ""))) for picture in before["pictures"]
            for path in (result_path(results, picture, ending) for ending in endings) if path.is_file()}


def _same_place(folder: Path, name: str, images: TestSet) -> bool:
    """Return whether the last test of a set wrote its results into the same folder."""
    flags = record(folder, name).get("flags")
    return isinstance(flags, dict) and flags.get("results", "") == _place(images)


def _place(images: TestSet) -> str:
    return str(images.results.resolve()) if images.results else ""


def check_free(folder: Path, name: str, images: TestSet, ending: str) -> None:
    """Raise UserError if a result would replace a file that no test of the set wrote, in the folder that the set names for its results."""
    before = earlier(folder, name, images)
    for picture in sorted({item.name for item in images.items if images.results}, key=files.natural):
        path = result_path(results_folder(folder, name, images), picture, ending)
        if os.path.lexists(path) and not (picture in before and before[picture].is_at(path)):
            raise UserError(f"{path} exists, and this program did not write it, or it was changed since; move it away, or name another "
                            "place with -o")


def conditions(images: TestSet, args, weights: str) -> dict:
    """Return the flags that a result depends on, the path of the weights, and the folder of the results if the set names one."""
    flags = {key: value for key, value in args.flags.items() if key not in UNRELATED}
    flags["weights"] = str(Path(zoo.located(weights)).resolve())
    return flags | ({"results": _place(images)} if images.results else {})


def is_done(before: Written | None, item: Item, result: Path, weights: str) -> bool:
    """Return whether `result` is the one that an earlier test wrote for an item's file, and newer than that file and the weights."""
    source = data_source.path_of(item.images["input"])
    if not before or not source or before.file != source.name or not before.is_at(result):
        return False
    try:
        return result.stat().st_mtime_ns > max(source.stat().st_mtime_ns, Path(zoo.located(weights)).stat().st_mtime_ns)
    except OSError:
        return False


def results_folder(folder: Path, name: str, images: TestSet) -> Path:
    """Return the folder for the restored images of a set."""
    return images.results or folder / f"results-{name}"


def _made(folder: Path, name: str, images: TestSet, picture: str, before: Written | None, args) -> list[Path]:
    """Return the files that a test made for an image, of the kinds that the flags select."""
    found = []
    if args.save_results:
        paths = [result_path(results_folder(folder, name, images), picture, ending) for ending in ENDINGS]
        found = [path for path in paths if before and before.is_at(path)] + [before_path(folder, name, picture)]
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
        with written.result(folder, name, result_path(folder / f"results-{name}", batch.name[0]), batch.name[0]) as part:
            image.write(part, restored)
    if args.save_gt:
        sides = [image.to_array(batch.input[0]), restored, *(image.to_array(target[0]) for target in batch.targets.values())]
        path = sheet_path(folder, name, batch.name[0])
        files.make_folder(path.parent)
        image.write(path, np.hstack(sides))
