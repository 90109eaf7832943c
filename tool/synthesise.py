"""Make a paired data set from clean photos: python -m tool.synthesise snow --input photos --output dataset/mysnow

Writes PNG files to SET/input, SET/target and, for snow, SET/mask, paired by name; SET/synthesis.json states the settings.
A pair depends only on the seed, the name of the photo and the version, so an interrupted run can be repeated.
"""
import argparse
import functools
import json
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data import DATASETS, degrade, demo, image
from data.choose import DEMO_NAMES
from runtime import arguments
from runtime.errors import UserError
from runtime.files import check_output, make_folder, write_json

VERSION = 1                               # raise it when data/degrade.py or `make` gives other images
TAKEN = {*DATASETS, *DEMO_NAMES, "bin", "manifest"}    # names that have another meaning for --data_train


def span(limit: float, text: str) -> tuple[float, float]:
    """Return (a, b) for the text `a-b`, or (a, a) for `a`; both lie between 0 and the limit, else ArgumentTypeError."""
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(?:-(\d+\.?\d*|\.\d+))?", text)
    low, high = (float(found[1]), float(found[2] or found[1])) if found else (1, 0)
    if not low <= high <= limit:
        raise argparse.ArgumentTypeError(f"'{text}' is not a range within 0-{limit}; write a-b with a <= b, or one number")
    return low, high


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed flags; UserError for an unknown flag or a wrong value."""
    parser = arguments.Parser(prog="tool.synthesise", allow_abbrev=False, description="Make a paired data set from clean photos.")
    add = parser.add_argument
    add("weather", choices=demo.WEATHERS, help="the degradation to add to the photos")
    add("--input", type=Path, required=True, metavar="CLEAN", help="folder of clean photos")
    add("--output", type=Path, required=True, metavar="SET", help="output directory; its name is the name of the data set")
    add("--seed", type=arguments.COUNT, default=1, help="seed of the random numbers (default: 1)")
    add("--strength", type=functools.partial(span, 5), metavar="a-b", help="amount, drawn uniformly for each image (default: 0.5-1.5)")
    add("--sigma", type=functools.partial(span, 255), metavar="a-b", help="noise only: its standard deviation, 0-255 (default: 15-50)")
    add("--versions", type=arguments.SIZE, default=1, metavar="N",
        help="number of pairs for each photo, named <name>_1 to <name>_N (default: 1, named <name>)")
    add("--jobs", type=arguments.SIZE, default=0, metavar="N", help="processes; they do not change the images (default: one for each CPU)")
    add("--overwrite", action="store_true", help="make existing pairs again")
    args = parser.parse_args(argv)
    measure, other = ("sigma", "strength") if args.weather == "noise" else ("strength", "sigma")
    if getattr(args, other):
        raise UserError(f"--{other} has no effect for {args.weather}; use --{measure} a-b")
    amount = getattr(args, measure) or {"strength": (0.5, 1.5), "sigma": (15.0, 50.0)}[measure]
    args.folders = ("input", "mask", "target") if args.weather == "snow" else ("input", "target")
    args.settings = {"tool": VERSION, "weather": args.weather, "seed": args.seed, measure: list(amount), "versions": args.versions}
    return args


def plan(args: argparse.Namespace) -> list[tuple[Path, str, int]]:
    """Return the pairs to make as (clean photo, name, version); UserError when CLEAN or SET cannot be used. Nothing is written."""
    clean, root = args.input.resolve(), args.output.resolve()
    if not clean.is_dir():
        raise UserError(f"there is no folder {args.input}; --input names the folder of clean photos")
    if root.is_relative_to(clean) or clean.is_relative_to(root):
        raise UserError(f"--output {args.output} and --input {args.input} contain one another; choose an --output outside of --input")
    if root.name in TAKEN or "+" in root.name:
        raise UserError(f"a set with the name '{root.name}' cannot be loaded, because --data_train gives this name another meaning; "
                        "choose another --output")
    photos = image.listing(args.input)
    if not photos:
        raise UserError(f"{args.input} contains no image; known file endings: {', '.join(sorted(image.EXTENSIONS))}")
    seen = {}
    for photo in photos:
        image.size(photo)
        if seen.setdefault(photo.stem, photo) != photo:
            raise UserError(f"{seen[photo.stem]} and {photo.name} would both become {photo.stem}.png; rename or remove one of them")
    check_output(args.output, "--output", folder=True)
    check_settings(args.output, args.settings)
    return [(photo, f"{photo.stem}_{version}" if args.versions > 1 else photo.stem, version)
            for photo in photos for version in range(1, args.versions + 1)]


def check_settings(root: Path, settings: dict) -> None:
    """Raise UserError unless the set is new, empty or was started with the same settings."""
    if not root.exists() or (root.is_dir() and all(path.name.startswith(".") for path in root.iterdir())):
        return
    try:
        old = json.loads((root / "synthesis.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        old = None
    if not isinstance(old, dict):
        raise UserError(f"{root} is not empty and was not made by this tool (it has no valid synthesis.json); choose another --output")
    other = [f"{key} {old.get(key)}, now {settings.get(key)}" for key in {**settings, **old} if old.get(key) != settings.get(key)]
    if other:
        raise UserError(f"{root} was made with other settings ({'; '.join(other)}); choose another --output, or delete the folder")


def make(args: argparse.Namespace, task: tuple[Path, str, int]) -> bool:
    """Write one pair, the input last; return False if a complete pair of the same photo exists already."""
    photo, name, version = task
    clean = image.read(photo)
    paths = {key: args.output / key / f"{name}.png" for key in reversed(args.folders)}
    if not args.overwrite and all(path.is_file() for path in paths.values()) and np.array_equal(image.read(paths["target"]), clean):
        return False
    rng = np.random.default_rng([args.seed, demo.WEATHERS.index(args.weather), version, *os.fsencode(photo.stem)])
    amount = rng.uniform(*args.settings.get("sigma", args.settings.get("strength")))
    result = getattr(degrade, args.weather)(clean / 255, rng, amount)
    found = dict(zip(("input", "mask"), result)) if "mask" in paths else {"input": result}
    paths["input"].unlink(missing_ok=True)               # so that an old input never stands beside a new target
    for key, path in paths.items():
        image.write(path, np.rint(found[key] * 255).astype(np.uint8) if key in found else clean)
    return True


def work(args: argparse.Namespace, tasks: list[tuple[Path, str, int]]) -> Iterator[bool]:
    """Make all pairs in worker processes; an error in one of them ends all."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pool = ProcessPoolExecutor(min(args.jobs or cpus, len(tasks)), initializer=_start_worker)
    try:
        yield from pool.map(functools.partial(make, args), tasks)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Ignore Ctrl-C, which the main process handles, and exit when the main process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True).start()


def main(argv: list[str] | None = None) -> int:
    """Run one command line; return the exit status: 0, 1 for a failure, 2 for an error that the user can correct."""
    try:
        args = parse(argv)
        tasks = plan(args)
        write_json(make_folder(args.output) / "synthesis.json", args.settings)      # first, so that SET always has its settings
        for name in args.folders:
            make_folder(args.output / name)
        made = sum(tqdm(work(args, tasks), total=len(tasks), desc=args.weather, unit="pair", disable=None))
        print(f"{args.output}: {len(tasks)} pairs, {made} made and {len(tasks) - made} existed already; to train on them: "
              f"python main.py --dir_data {os.path.relpath(args.output.resolve().parent)} --data_train {args.output.resolve().name}")
        return 0
    except UserError as error:
        text, status = error, 2
    except OSError as error:
        text, status = f"{error.filename or args.output}: {error.strerror or error}; complete pairs stay; the same command continues", 1
    except (MemoryError, BrokenProcessPool):
        text, status = "the memory is full or a process was killed; try fewer --jobs; the same command continues", 1
    except KeyboardInterrupt:
        text, status = "stopped by Ctrl-C; the same command continues", 130
    print(f"tool.synthesise: error: {text}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
