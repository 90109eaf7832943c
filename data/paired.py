"""Paired images on disk: which degraded file belongs to which clean file."""
from pathlib import Path
from typing import NamedTuple

import numpy as np

import runtime
from data import image
from utility import UserError


class Item(NamedTuple):
    """One entry of a data set: each image is a file, or an (H, W, 3) uint8 array."""
    name: str
    images: dict[str, Path | np.ndarray]      # 'input', 'image' (the clean target), 'mask' where there is one
    kind: int = 0


def find(root: Path, split: str) -> list[Item]:
    """List the pairs of a data set folder; `split` is 'train' or 'test'.

    Known layouts: input/ + target/ (+ mask/), directly or below train/ and test/; EDSR's <name>_train_HR (clean) +
    <name>_train_LR_bicubic/x1 (degraded) (+ <name>_train_EDGE, mask).
    UserError names what is missing.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; put the data set there or name another place with --dir_data")
    if (root / f"{root.name}_train_HR").is_dir() or (root / f"{root.name}_train_LR_bicubic").is_dir():
        inputs = root / f"{root.name}_train_LR_bicubic"
        scaled = [inputs / name for name in ("x1", "X1") if (inputs / name).is_dir()]
        return pairs({"input": scaled[0] if scaled else inputs / "x1", "image": root / f"{root.name}_train_HR",
                      "mask": root / f"{root.name}_train_EDGE"})
    if has_splits(root):
        root = root / split
    if (root / "input").is_dir() or (root / "target").is_dir():
        return pairs({"input": root / "input", "image": root / "target", "mask": root / "mask"})
    raise UserError(f"{root} has no known layout: it needs input/ and target/ (and mask/ if there are masks), or "
                    f"{root.name}_train_HR/ and {root.name}_train_LR_bicubic/x1/")


def has_splits(root: Path) -> bool:
    """Return whether a data set folder has a train/ and a test/ part of its own."""
    return (root / "train" / "input").is_dir() and (root / "test" / "input").is_dir()


def pairs(folders: dict[str, Path]) -> list[Item]:
    """Pair the files of several folders by stem; 'input' and 'image' must exist, other folders may be absent.

    An input without a clean partner is a UserError; a mask may be missing.
    """
    files = {key: _by_stem(folder) for key, folder in folders.items() if folder.is_dir()}
    for key in ("input", "image"):
        if key not in files:
            raise UserError(f"there is no folder {folders[key]}, which should hold the "
                            f"{'degraded' if key == 'input' else 'clean'} images")
        if not files[key]:
            raise UserError(f"{folders[key]} holds no image; known are {', '.join(sorted(image.EXTENSIONS))}")
    alone = sorted(set(files["input"]) - set(files["image"]))
    if alone:
        raise UserError(f"{len(alone)} of {len(files['input'])} images in {folders['input']} have no partner of the same "
                        f"name in {folders['image']}: {_names(files['input'], alone)}")
    spare = sorted(set(files["image"]) - set(files["input"]))
    if spare:
        runtime.log().say(f"{len(spare)} images in {folders['image']} have no degraded partner and are not used: "
                          f"{_names(files['image'], spare)}")
    return [Item(stem, {key: stems[stem] for key, stems in files.items() if stem in stems})
            for stem in sorted(files["input"])]


def _names(files: dict[str, Path], stems: list[str]) -> str:
    return ", ".join(files[stem].name for stem in stems[:10]) + (", …" if len(stems) > 10 else "")


def _by_stem(folder: Path) -> dict[str, Path]:
    stems: dict[str, Path] = {}
    for path in image.listing(folder):
        if path.stem in stems:
            raise UserError(f"two files stand for one image: {stems[path.stem]} and {path.name}; keep one of them")
        stems[path.stem] = path
    return stems


def pictures(folder: Path | None) -> list[Item]:
    """List a folder of pictures without truth, one Item per picture, named by its stem."""
    if not folder or not folder.is_dir():
        raise UserError(f"there is no folder {folder}; --dir_demo names the folder of pictures to restore")
    paths = image.listing(folder)
    if not paths:
        raise UserError(f"{folder} holds no image; known are {', '.join(sorted(image.EXTENSIONS))}")
    stems = [path.stem for path in paths]
    return [Item(path.stem if stems.count(path.stem) == 1 else path.name.replace(".", "_"), {"input": path})
            for path in paths]


def check_sizes(items: list[Item]) -> None:
    """Raise UserError when a file's header is damaged or the images of an item differ in size."""
    for item in items:
        sizes = {key: image.size(path) for key, path in item.images.items() if isinstance(path, Path)}
        if len(set(sizes.values())) > 1:
            text = ", ".join(f"{item.images[key]} is {width}x{height}" for key, (height, width) in sizes.items())
            raise UserError(f"the images of a pair must have one size: {text} (width x height)")
