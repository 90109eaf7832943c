"""python -m tool.verify [SET …]: list the data sets and report missing, damaged, doubtful and changed files."""
import argparse
import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from contract import Item
from data import paired, source
from data.sets import DATASETS, Entry
from runtime.arguments import Parser
from runtime.errors import Failure, UserError
from runtime.files import check_output, make_folder, natural, write_json
from tool import guarded

DOUBTFUL = (6.0, 50.0)                    # PSNR in dB; below or above, input and target of a pair probably do not belong together
SIDE, CLOSE, EQUAL = 16, 4.0, 32.0        # almost equal targets: side and levels of their reduced forms, and PSNR in dB
LISTED = 100                              # scenes with several targets that are printed
SHOWN = 10                                # messages of one kind that are printed


class Checked(NamedTuple):
    """The result for one part of a set: its name, the number of images found and published, and error messages."""
    split: str
    count: int
    published: int | None
    problems: list[str]
    equal: list[str]                      # groups of items with equal targets, as in '25 = 6'

    def state(self) -> str:
        """Return the state for the printed table; a count other than the published one is noted, but it is no error."""
        if self.problems:
            return "see below"
        return "fine" if self.published in (None, self.count) else "count differs from the published one"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed flags; UserError for an unknown flag."""
    parser = Parser(prog="tool.verify", description=__doc__, allow_abbrev=False)
    parser.add_argument("sets", nargs="*", metavar="SET", help="data sets to check; default: all that exist")
    parser.add_argument("--dir_data", default=os.environ.get("UNWEATHER_DATA", "dataset"), metavar="DIR",
                        help="folder of the data sets; default: $UNWEATHER_DATA or dataset")
    parser.add_argument("--manifest", default="", metavar="DIR",
                        help="folder of the files with hashes, which are written once and checked later; default: <dir_data>/manifest")
    parser.add_argument("--quick", action="store_true", help="check names, counts and sizes only; do not decode or hash files")
    return parser.parse_args(argv)


def run(argv: list[str] | None = None) -> None:
    """Print a line for each part of a set with its errors below; Failure when there is an error."""
    args = arguments(argv)
    root = Path(args.dir_data)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; create it, or name another folder with --dir_data")
    place = Path(args.manifest or root / "manifest")
    check_output(place, "--manifest", folder=True)
    unknown = [name for name in args.sets if name not in DATASETS and not (root / name).is_dir()]
    if unknown:
        raise UserError(f"unknown data set '{unknown[0]}'; known: {', '.join(known())}, and every folder in {root}")
    there = sorted((path.name for path in root.iterdir() if path.is_dir() and path.name not in ("bin", "manifest", "train")), key=natural)
    bad = []
    print(f"{'set':16}{'part':8}{'images':>8}{'published':>11}   state")
    for name in args.sets or there:
        checked = check(root / name, DATASETS.get(name, Entry("", "")), args.quick)
        if not checked[0].count and name not in (*args.sets, *DATASETS):
            print(f"{name:16}{'-':8}{0:8}{'':>11}   no data set of a known layout")
            continue
        problems = [problem for part in checked for problem in part.problems]
        problems += [] if args.quick else manifest(root / name, checked, place)
        for part in checked:
            print(f"{name:16}{part.split:8}{part.count:8}{part.published or '':>11}   {part.state()}")
            if part.equal:
                more = f" and {len(part.equal) - LISTED} more" if len(part.equal) > LISTED else ""
                print(f"    note: {len(part.equal)} scenes occur more than once, with equal or almost equal targets: "
                      f"{', '.join(part.equal[:LISTED])}{more}")
        for problem in problems:
            print(f"    {problem}")
        bad += [name] * bool(problems)
    if not args.sets:
        print(f"\nmissing; put them into {root}")
        for name in known():
            if name not in there:
                entry = DATASETS[name]
                print(f"  {name:14} {entry.about}; as {paired.in_words(entry.layouts[0], name)}")
    if bad:
        raise Failure(f"sets with errors: {', '.join(bad)}")


def known() -> list[str]:
    """Return the names of the sets that are read from files (not the embedded ones)."""
    return [name for name, entry in DATASETS.items() if not entry.embedded]


def check(root: Path, entry: Entry, quick: bool) -> list[Checked]:
    """Check the training part and the test part of a set, or its only part; errors are returned, not raised."""
    parts, seen = [], None
    for split in ("train", "test"):
        try:
            items, own = paired.find(root, split, entry.layouts)
        except UserError as error:
            return parts or [Checked("-", 0, None, [str(error)], [])]
        if seen == items:                                  # the set has one part for both
            continue
        seen = items
        if not own:                                        # the part with this published count, else the test part
            fitting = [name for name, count in entry.counts.items() if count == len(items)]
            split = (fitting or list(entry.counts)[-1:] or ["all"])[0]
        problems, small = broken(items, quick)
        parts.append(Checked(split, len(items), entry.counts.get(split), problems, duplicates(items, small)))
    return parts


def broken(items: list[Item], quick: bool) -> tuple[list[str], dict[int, np.ndarray]]:
    """Return messages about single items, and the targets reduced to (SIDE, SIDE) grey levels by the number of the item.

    The messages are about unreadable files, different sizes, and pairs that probably do not belong together.
    """
    small = {}

    def look(number: int) -> str:
        item = items[number]
        try:
            source.check_sizes([item])
            if quick:
                return ""
            images = {key: source.read(each) for key, each in item.images.items()}
        except UserError as error:
            return str(error)
        if "image" in images:
            small[number] = reduced(images["image"])
        if {"input", "image"} <= images.keys():
            error = np.mean((images["input"].astype(np.float32) - images["image"]) ** 2)
            level = 10 * np.log10(255**2 / max(error, 1e-6))
            if not DOUBTFUL[0] <= level <= DOUBTFUL[1]:
                return (f"{item.name}: input and target are {level:.1f} dB apart: "
                        f"{'probably not the same scene' if level < DOUBTFUL[0] else 'probably not degraded'}")
        return ""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(tqdm(pool.map(look, range(len(items))), "check", len(items), unit="image", disable=None, leave=False))
    return shortened([text for text in found if text]), small


def reduced(picture: np.ndarray) -> np.ndarray:
    """Return the mean grey levels of an image's SIDE × SIDE equal parts, (SIDE, SIDE) float32."""
    grey = Image.fromarray(picture).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(grey, np.float32)


def duplicates(items: list[Item], small: dict[int, np.ndarray]) -> list[str]:
    """Return the names of the items with equal or almost equal targets, one text 'a = b = c' for each scene.

    Items that share the file of their target, as the 14 rains of one scene in Rain1400, are one item here. Targets are almost
    equal if they have one size, their reduced forms differ by less than CLOSE levels, and their PSNR is above EQUAL.
    """
    files = {str(items[number].images["image"]): number for number in reversed(small)}
    order = sorted(files.values(), key=lambda number: float(small[number].mean()))
    levels = np.array([small[number].mean() for number in order])
    stack = np.array([small[number].ravel() for number in order])
    leader = {number: number for number in order}                       # of the same scene, with a smaller number

    def first(number: int) -> int:
        while leader[number] != number:
            number = leader[number]
        return number

    for place, number in enumerate(order):
        end = int(np.searchsorted(levels, levels[place] + CLOSE))         # targets that differ more in their mean are not compared
        near = np.flatnonzero(np.abs(stack[place + 1:end] - stack[place]).max(1, initial=0) < CLOSE)
        for other in (order[place + 1 + int(each)] for each in near):
            one, two = sorted((first(number), first(other)))
            if one != two and almost_equal(items[number], items[other]):
                leader[two] = one
    scenes: dict[int, list[int]] = {}
    for number in sorted(leader):
        scenes.setdefault(first(number), []).append(number)
    return [" = ".join(items[number].name for number in scene) for scene in scenes.values() if len(scene) > 1]


def almost_equal(one: Item, other: Item) -> bool:
    """Return whether the targets of two items have one size and a PSNR above EQUAL."""
    a, b = (source.read(item.images["image"]).astype(np.float32) for item in (one, other))
    return a.shape == b.shape and 10 * np.log10(255**2 / max(float(np.mean((a - b) ** 2)), 1e-6)) > EQUAL


def shortened(texts: list[str]) -> list[str]:
    """Return the first SHOWN texts and a line with the number of the others."""
    return texts[:SHOWN] + ([f"and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else [])


def manifest(root: Path, checked: list[Checked], place: Path) -> list[str]:
    """Write the hashes of the files of a set if there is no manifest, else return the differences from the manifest."""
    path = place / f"{root.name}.json"
    if not any(part.count for part in checked):
        return []
    files = sorted(file for file in root.rglob("*") if file.is_file() and not file.name.startswith("."))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = dict(zip((str(file.relative_to(root)) for file in files), pool.map(digest, files)))
    if not path.is_file():
        if not any(part.problems for part in checked):
            write_json(make_folder(place) / path.name, hashes)
        return []
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(stored, dict)
    except (OSError, ValueError, AssertionError) as error:
        raise UserError(f"the manifest {path} is damaged; delete it, and the next check writes a new one") from error
    differing = sorted((name for name in stored.keys() | hashes.keys() if stored.get(name) != hashes.get(name)), key=natural)
    differences = [f"{name} is {'new' if name not in stored else 'missing' if name not in hashes else 'changed'} "
                   "since the manifest was written" for name in differing]
    hint = f"the manifest is {path}; if the change is intended, delete it, and the next check writes a new one"
    return shortened(differences) + [hint] * bool(differences)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


if __name__ == "__main__":
    sys.exit(guarded("tool.verify", run))
