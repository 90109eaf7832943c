"""python -m tool.make_lists: write the training lists of the all-in-one model (noise, rain, haze) as CSV lines target,degraded."""
import argparse
import itertools
import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contract import Item
from data import paired, source
from data.sets import DATASETS
from runtime.arguments import SIZE, Parser, number
from runtime.errors import UserError
from runtime.files import check_output, make_folder, natural, write_text
from tool import guarded

PUBLISHED = {"noise": 5144, "rain": 5000, "haze": 5000, "all_in_one": 15144}      # number of lines in the lists of the paper
NOISE, RAIN, HAZE = ("BSD400", "WED"), ("RainTrainL", "Rain100L"), "RESIDE_OTS"
MARKS = re.compile(r'[,|"\r\n]')          # characters that a path in a list cannot contain


class Made(NamedTuple):
    """The lines of one list, and a text that states what is missing for it."""
    lines: list[str]
    lack: str = ""

    def state(self) -> str:
        """Return the state for the printed table: a list with lines is written, an empty one is not."""
        return "; ".join(filter(None, ("written", self.lack))) if self.lines else f"not written: {self.lack}"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed flags; UserError for an unknown flag."""
    parser = Parser(prog="tool.make_lists", description=__doc__, allow_abbrev=False)
    parser.add_argument("--dir_data", default="dataset", metavar="DIR",
                        help="folder of the data sets; the paths in the lists are relative to it")
    parser.add_argument("--out", default="", metavar="DIR", help="output directory; default: <dir_data>/train")
    parser.add_argument("--lines", type=SIZE, default=5000, metavar="N",
                        help="lines of the rain list (its pairs are repeated) and of the haze list (one for each scene); default: 5000")
    parser.add_argument("--seed", type=number(int, 0, 2**63 - 1), default=1, help="seed for the choice of hazy images; default: 1")
    parser.add_argument("--force", action="store_true", help="overwrite existing lists")
    return parser.parse_args(argv)


def run(argv: list[str] | None = None) -> None:
    """Write the lists whose data sets exist and print a line for each; UserError when no list can be written."""
    args = arguments(argv)
    root = Path(args.dir_data)
    place = Path(args.out) if args.out else root / "train"
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; put the data sets there or name another folder with --dir_data")
    check_output(place, "--out", folder=True)
    lists = {"noise": noise(root), "rain": rain(root, args.lines), "haze": haze(root, args.lines, args.seed)}
    if not any(made.lines for made in lists.values()):
        raise UserError(f"no list can be written: {'; '.join(made.lack for made in lists.values())}; "
                        "python -m tool.verify prints where each set belongs")
    lists["all_in_one"] = together(lists)
    paths = {name: place / f"train_{name}.csv" for name in lists}
    there = [str(paths[name]) for name, made in lists.items() if made.lines and paths[name].exists()]
    if there and not args.force:
        raise UserError(f"{', '.join(there)} would be overwritten; use --force to overwrite, or --out for another folder")
    for name, made in lists.items():
        if made.lines:
            write_text(make_folder(place) / paths[name].name, "".join(f"{line}\n" for line in made.lines))
    print(f"{'list':22}{'lines':>8}{'published':>11}   state")
    for name, made in lists.items():
        older = "; an older list exists and was not changed" if not made.lines and paths[name].exists() else ""
        print(f"{paths[name].name:22}{len(made.lines):8}{PUBLISHED[name]:11}   {made.state()}{older}")


def noise(root: Path) -> Made:
    """List every clean photo as its own degraded image, because the noise is added during training."""
    there = [name for name in NOISE if (root / name).is_dir()]
    missing = [str(root / name) for name in NOISE if name not in there]
    lack = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing" if missing else ""
    photos = [item.images["image"] for name in there for item in find(root / name)]
    return Made([line(root, photo, photo) for photo in photos], lack)


def rain(root: Path, count: int) -> Made:
    """List the training pairs in order, repeated up to `count` lines; test pairs are never used."""
    alone, both = (root / name for name in RAIN)
    own_part = both.is_dir() and any(paired.locate(both, name) for name in paired.PARTS["train"])
    items = find(alone) if alone.is_dir() else find(both, own=True) if own_part else []
    lines = pairs(root, items)
    return Made(list(itertools.islice(itertools.cycle(lines), count)),
                "" if lines else f"{alone} is missing and the training part {both}/{paired.PARTS['train'][0]} is missing")


def haze(root: Path, count: int, seed: int) -> Made:
    """List one hazy version of each of up to `count` scenes, in the order of the scenes; the seed draws scenes and versions."""
    if not (root / HAZE).is_dir():
        return Made([], f"{root / HAZE} is missing")
    scenes: dict[str, list[Item]] = {}
    for item in find(root / HAZE):        # some copies have one clear image for each hazy image, under the name of the hazy image
        scenes.setdefault(item.images["image"].stem.partition("_")[0], []).append(item)
    rng = np.random.default_rng(seed)
    chosen = sorted(scenes, key=natural)
    if len(chosen) > count:
        chosen = sorted(rng.choice(chosen, count, replace=False).tolist(), key=natural)
    return Made(pairs(root, [scenes[scene][rng.integers(len(scenes[scene]))] for scene in chosen]))


def together(lists: dict[str, Made]) -> Made:
    """Join the lists in their order; the result is empty when one of them is empty."""
    absent = [f"train_{name}.csv" for name, made in lists.items() if not made.lines]
    if absent:
        return Made([], f"it needs {' and '.join(absent)}")
    return Made([each for made in lists.values() for each in made.lines], "; ".join(made.lack for made in lists.values() if made.lack))


def find(root: Path, own: bool = False) -> list[Item]:
    """Return the training items of a set; UserError for an unknown layout, or with `own` when the set has no separate training part."""
    # view 'centre' crops larger clean images and reads the sizes of all 300,000 files; `pairs` checks the sizes of the drawn pairs
    layouts = tuple(layout._replace(view="" if layout.view == "centre" else layout.view) for layout in DATASETS[root.name].layouts)
    items, is_part = paired.find(root, "train", layouts)
    if own and not is_part:
        raise UserError(f"the training part of {root} holds no pairs in a known layout; it needs {layouts[0]}")
    for item in items:
        views = [each for each in item.images.values() if not isinstance(each, Path)]
        if views:
            raise UserError(f"{source.path_of(views[0])} is a part of a file, but a list can name only whole files; split the file")
    return items


def pairs(root: Path, items: list[Item]) -> list[str]:
    """Return a line for each pair; UserError when the two images of a pair differ in size."""
    try:
        source.check_sizes(items)
    except UserError as error:
        raise UserError(f"{error}; a list names whole files, so crop the larger image to its centre") from error
    return [line(root, item.images["image"], item.images["input"]) for item in items]


def line(root: Path, *files: Path) -> str:
    """Return a line with paths relative to root; UserError for a name that a list cannot contain."""
    names = [path.relative_to(root).as_posix() for path in files]
    for name in names:
        if MARKS.search(name) or name != name.strip():
            raise UserError(f"a list cannot contain the name '{name}', which has a comma, bar or quote, or a blank at an end; rename it")
    return ",".join(names)


if __name__ == "__main__":
    sys.exit(guarded("tool.make_lists", run))
