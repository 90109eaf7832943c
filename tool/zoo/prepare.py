"""The data sets of the zoo: links in dataset/zoo to the images of $UNWEATHER_DATA, without the training images that show test scenes."""
import contextlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from contract import Item
from data import demo, image, leaks, paired
from data.sets import DATASETS
from runtime import files
from runtime.errors import UserError

ROOT = Path("dataset/zoo")
PHOTOS = "photos"                         # clean photos: input/ and target/ are the same folder
TESTS = ("Rain100L", "CBSD68", "SOTS_indoor")
NEEDED = ("BSDS500/train", "BSDS500/test", "Rain800/train", "Rain800/test", *TESTS)
TRAINED = ("BSDS500/train", "BSDS500/test", "Rain800/train")


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
    """Write dataset/zoo (without data dataset/zoo/smoke) and return it; links that exist and files that are equal stay as they are.

    Training images that show a test scene are left out: those that the lists leaks/SET_PART_LEAKS*.txt name, and those that the search of
    data/leaks.py finds. Raises UserError if something else is in the place of a link.
    """
    root = ROOT if found else ROOT / "smoke"
    if not found:
        return smoke(root)
    for name in TESTS:
        link(root / name, found / name)
    fill(root / "Rain800" / "test", image.listing(found / "Rain800" / "test"))
    kept = trained(found, root)
    every = [path.name for part in TRAINED for path in image.listing(found / part)]
    fill(root / "Rain800" / "train", kept["Rain800/train"], every)
    fill(root / PHOTOS / "target", [*kept["BSDS500/train"], *kept["BSDS500/test"]], every)
    link(root / PHOTOS / "input", Path("target"))
    for weights in (found / "weights", found.parent / "weights"):          # released weights from which a recipe starts
        if weights.is_dir():
            link(root / "weights", weights)
            break
    return root


def trained(found: Path, root: Path) -> dict[str, list[Path]]:
    """Return the training images of each part without those that show a scene of a test set."""
    shown = leaking(found, root)
    return {part: [path for path in listed(found, part) if str(path.relative_to(found)) not in shown] for part in TRAINED}


def listed(found: Path, part: str) -> list[Path]:
    """Return the images of a training part, as in BSDS500/train, without those that a list in leaks/ names."""
    lists = found.glob(f"leaks/{part.replace('/', '_')}_LEAKS*.txt")
    named = {line.strip() for path in lists for line in path.read_text(encoding="utf-8").splitlines()}
    return [path for path in image.listing(found / part) if path.name not in named]


def leaking(found: Path, root: Path) -> set[str]:
    """Return the training images, relative to `found`, that show a scene of a test set; the search is repeated when files have changed."""
    clean = [Item(str(path.relative_to(found)), {"image": path}) for part in TRAINED[:2] for path in listed(found, part)]
    keep = set(listed(found, TRAINED[2]))
    pairs = [item._replace(name=f"Rain800/train/{path.name}") for item in items(found, "Rain800", "train")
             if (path := Path(leaks.path_of(item.images["image"]))) in keep]
    tests = [item for name in (*TESTS, "Rain800") for item in items(found, name, "test")]
    place = root / "leaks.json"
    state = {"train": [item.name for item in (*clean, *pairs)], "tests": [item.name for item in tests], "version": leaks.VERSION}
    known = files.read_json(place) if place.is_file() else {}
    if known.get("of") != state:
        print("searching the training images for scenes of the test sets", flush=True)
        pairs_found = leaks.find([*clean, *pairs], tests, root / "bin" / "leaks")
        known = {"of": state, "leaks": sorted({leak.train.name for leak in pairs_found})}
        files.write_json(place, known)
    return set(known["leaks"])


def items(found: Path, name: str, part: str) -> list[Item]:
    """Return the images of a set in the folder that UNWEATHER_DATA names."""
    return paired.find(found / name, part, DATASETS[name].layouts)[0] if DATASETS[name].task != "noise" else [
        Item(path.stem, {"image": path}) for path in image.listing(found / name)]


def smoke(root: Path) -> Path:
    """Write scikit-image's photos as the set of clean photos, so that the commands of the zoo can be tried without data."""
    target = files.make_folder(root / PHOTOS / "target")
    for name, photo in demo.photos("train").items():
        if not (target / f"{name}.png").is_file():
            image.write(target / f"{name}.png", photo)
    link(root / PHOTOS / "input", Path("target"))
    return root


def fill(folder: Path, images: list[Path], every: Collection[str] = ()) -> None:
    """Let a folder hold links to these images, no other links, and no copies (on a system without links) with other names of `every`."""
    files.make_folder(folder)
    names = {path.name for path in images}
    for old in folder.iterdir():
        if old.name not in names and (old.is_symlink() or old.name in every):
            old.unlink()
    for path in images:
        link(folder / path.name, path)


def link(place: Path, to: Path) -> None:
    """Make `place` a link to a file or folder, or a copy on a system without links; raises UserError if something else is there."""
    if place.is_symlink() and Path(os.readlink(place)) == to:
        return
    files.make_folder(place.parent)
    origin = place.parent / to
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        if place.is_dir() == origin.is_dir() and (place.is_dir() or place.stat().st_size == origin.stat().st_size):
            return                        # a copy of an earlier call
        raise UserError(f"{place} is in the place of a link to {to}; move it away")
    try:
        place.symlink_to(to, target_is_directory=origin.is_dir())
    except OSError:
        part = place.with_name(f".{place.name}.part")
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(part) if part.is_dir() else part.unlink()
        (shutil.copytree if origin.is_dir() else shutil.copy2)(origin, part)
        os.rename(part, place)
