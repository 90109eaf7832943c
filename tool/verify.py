"""python -m tool.verify [SET …]: what is in the data folder, what is missing, damaged, doubtful or changed."""
import argparse
import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from contract import Item
from data import paired, source
from data.sets import DATASETS, Entry
from runtime.arguments import Parser
from runtime.errors import Failure, UserError
from runtime.files import make_folder, write_json
from tool import guarded
from utility import natural

DOUBTFUL = (6.0, 50.0)                    # PSNR in dB below or above which a pair hardly belongs together
SHOWN = 10


class Checked(NamedTuple):
    """One part of a set: its name, the images found and those published, and what is wrong with them in words."""
    split: str
    count: int
    published: int | None
    problems: list[str]

    def state(self) -> str:
        """Return the state in a word or two; another count is worth a note, but no fault."""
        if self.problems:
            return "see below"
        return "fine" if self.published in (None, self.count) else "another count than published"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the flags; UserError for unknown ones."""
    parser = Parser(prog="tool.verify", description=__doc__, allow_abbrev=False)
    parser.add_argument("sets", nargs="*", metavar="SET", help="data sets; default: all that are there")
    parser.add_argument("--dir_data", default=os.environ.get("UNWEATHER_DATA", "dataset"), metavar="DIR",
                        help="where the data sets are; default: $UNWEATHER_DATA or dataset")
    parser.add_argument("--manifest", default="", metavar="DIR",
                        help="where the hashes of all files are kept, written once and checked later; default: <dir_data>/manifest")
    parser.add_argument("--quick", action="store_true", help="names, counts and sizes only: decode and hash nothing")
    return parser.parse_args(argv)


def run(argv: list[str] | None = None) -> None:
    """Print a line per set and what is wrong below it; Failure when anything is."""
    args = arguments(argv)
    root = Path(args.dir_data)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; make it, or name another place with --dir_data")
    unknown = [name for name in args.sets if name not in DATASETS and not (root / name).is_dir()]
    if unknown:
        raise UserError(f"unknown data set '{unknown[0]}'; known: {', '.join(known())}, or a folder of {root}")
    there = sorted((path.name for path in root.iterdir() if path.is_dir() and path.name not in ("bin", "manifest", "train")), key=natural)
    bad = []
    print(f"{'set':16}{'part':8}{'images':>8}{'published':>11}   state")
    for name in args.sets or there:
        checked = check(root / name, DATASETS.get(name, Entry("", "")), args.quick)
        if not checked[0].count and name not in (*args.sets, *DATASETS):
            print(f"{name:16}{'-':8}{0:8}{'':>11}   no data set of a known layout")
            continue
        problems = [problem for part in checked for problem in part.problems]
        problems += [] if args.quick else manifest(root / name, checked, Path(args.manifest or root / "manifest"))
        for part in checked:
            print(f"{name:16}{part.split:8}{part.count:8}{part.published or '':>11}   {part.state()}")
        for problem in problems:
            print(f"    {problem}")
        bad += [name] * bool(problems)
    if not args.sets:
        print("\nnot there; put them into", root)
        for name in known():
            if name not in there:
                entry = DATASETS[name]
                print(f"  {name:14} {entry.about}; as {str(entry.layouts[0]).format(name=name)}")
    if bad:
        raise Failure(f"not as it should be: {', '.join(bad)}")


def known() -> list[str]:
    """Return the names of the sets that are files, not embedded."""
    return [name for name, entry in DATASETS.items() if not entry.embedded]


def check(root: Path, entry: Entry, quick: bool) -> list[Checked]:
    """Check the training and the test part of a set (or the one part that it has); nothing raises, all is told."""
    parts, seen = [], None
    for split in ("train", "test"):
        try:
            items, own = paired.find(root, split, entry.layouts)
        except UserError as error:
            return parts or [Checked("-", 0, None, [str(error)])]
        if seen == items:                                  # one part, which serves for both
            continue
        seen = items
        if not own:                                        # the part whose count fits, else the test
            fitting = [name for name, count in entry.counts.items() if count == len(items)]
            split = (fitting or list(entry.counts)[-1:] or ["all"])[0]
        parts.append(Checked(split, len(items), entry.counts.get(split), broken(items, quick)))
    return parts


def broken(items: list[Item], quick: bool) -> list[str]:
    """Return what is wrong with single items: unreadable files, sizes that differ, pairs that hardly belong together."""
    def look(item: Item) -> str:
        try:
            source.check_sizes([item])
            if quick:
                return ""
            images = {key: source.read(each) for key, each in item.images.items()}
        except UserError as error:
            return str(error)
        if {"input", "image"} <= images.keys():
            error = np.mean((images["input"].astype(np.float32) - images["image"]) ** 2)
            level = 10 * np.log10(255**2 / max(error, 1e-6))
            if not DOUBTFUL[0] <= level <= DOUBTFUL[1]:
                return (f"{item.name}: input and truth are {level:.1f} dB apart: "
                        f"{'hardly the same scene' if level < DOUBTFUL[0] else 'hardly degraded'}")
        return ""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(tqdm(pool.map(look, items), "check", len(items), unit="image", disable=None, leave=False))
    return shortened([text for text in found if text])


def shortened(texts: list[str]) -> list[str]:
    """Return the first texts and how many there are beyond."""
    return texts[:SHOWN] + ([f"… and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else [])


def manifest(root: Path, checked: list[Checked], place: Path) -> list[str]:
    """Write the hashes of a set's files when there is no manifest yet, else return how the files differ from it."""
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
        raise UserError(f"the manifest {path} is damaged; delete it to have it written anew") from error
    differing = sorted((name for name in stored.keys() | hashes.keys() if stored.get(name) != hashes.get(name)), key=natural)
    differences = [f"{name} is {'new' if name not in stored else 'missing' if name not in hashes else 'changed'} "
                   "since the manifest was written" for name in differing]
    return shortened(differences) + ([f"the manifest is {path}; delete it if the change is right"] if differences else [])


def digest(path: Path) -> str:
    """Return a file's SHA-256."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


if __name__ == "__main__":
    sys.exit(guarded("tool.verify", run))
