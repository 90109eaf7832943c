"""The data sets of the zoo: links in dataset/zoo to the images of $UNWEATHER_DATA, without the training images that show test scenes."""
import os
import shutil
from pathlib import Path

from data import demo, image
from runtime import files
from runtime.errors import UserError

ROOT = Path("dataset/zoo")
PHOTOS = "photos"                         # clean photos: input/ and target/ are the same folder
TESTS = ("Rain100L", "CBSD68", "SOTS_indoor")
NEEDED = ("BSDS500/train", "BSDS500/test", "Rain800/train", "Rain800/test", *TESTS)


def source() -> Path | None:
    """Return the folder that UNWEATHER_DATA names, None if it names none; raises UserError if it lacks a set that the zoo trains on."""
    text = os.environ.get("UNWEATHER_DATA", "")
    if not text:
        return None
    folder = Path(text)
    missing = [name for name in NEEDED if not (folder / name).is_dir()]
    if missing:
        raise UserError(f"UNWEATHER_DATA={text} lacks the folders {', '.join(missing)}; without this variable the zoo trains on "
                        "scikit-image's photos, as a smoke test")
    return folder.resolve()


def prepare(found: Path | None) -> Path:
    """Write dataset/zoo (without data dataset/zoo/smoke) and return it; links that exist and files that are equal stay as they are."""
    root = ROOT if found else ROOT / "smoke"
    if not found:
        return smoke(root)
    for name in ("train", "test"):
        for path in kept(found, "BSDS500", name):
            link(root / PHOTOS / "target" / path.name, path)
        for path in kept(found, "Rain800", name):
            link(root / "Rain800" / name / path.name, path)
    link(root / PHOTOS / "input", Path("target"))
    for name in TESTS:
        link(root / name, found / name)
    return root


def kept(found: Path, name: str, part: str) -> list[Path]:
    """Return the images of a part of a set, of a training part without those that a list in leaks/ names."""
    lists = found.glob(f"leaks/{name}_{part}_LEAKS*.txt")
    leaks = {line.strip() for path in lists for line in path.read_text(encoding="utf-8").splitlines()}
    return [path for path in image.listing(found / name / part) if path.name not in leaks]


def smoke(root: Path) -> Path:
    """Write scikit-image's photos as the set of clean photos, so that the commands of the zoo can be tried without data."""
    target = root / PHOTOS / "target"
    files.make_folder(target)
    for name, photo in demo.photos("train").items():
        place = target / f"{name}.png"
        if not place.is_file():
            image.write(place, photo)
    link(root / PHOTOS / "input", Path("target"))
    return root


def link(place: Path, to: Path) -> None:
    """Make `place` a link to a file or folder; an existing link to another one is replaced, and a system without links gets a copy."""
    if place.is_symlink() and Path(os.readlink(place)) == to:
        return
    files.make_folder(place.parent)
    if place.is_symlink():
        place.unlink()
    try:
        place.symlink_to(to, target_is_directory=(place.parent / to).is_dir())
    except OSError:
        source_path = place.parent / to
        (shutil.copytree if source_path.is_dir() else shutil.copy2)(source_path, place)
