"""Data sets by name, and what one training job reads."""
import errno
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import DataLoader

import loss
import runtime
from data import cache, demo, image, loader, paired
from data.paired import Item
from utility import UserError


class Entry(NamedTuple):
    """A named data set: a line about it and how its items are listed, `open(folder, split) -> [Item]`."""
    about: str
    open: Callable[[Path, str], list[Item]]
    splits: bool = False                  # it has a training and a test part of its own


DATASETS = {
    "DIV2K": Entry("EDSR's layout: DIV2K_train_HR clean, _LR_bicubic/x1 degraded, _EDGE masks", paired.find),
    "DemoSnow": Entry("scikit-image's photos under synthetic snow, with masks (embedded)", demo.opener("snow"), True),
    "DemoRain": Entry("the same photos under rain streaks (embedded)", demo.opener("rain"), True),
    "DemoHaze": Entry("the same photos in haze that grows with depth (embedded)", demo.opener("haze"), True),
    "DemoNoise": Entry("the same photos with Gaussian noise (embedded)", demo.opener("noise"), True),
    "Demo": Entry("the four together, kind 0-3; with --dir_demo that folder of pictures instead", demo.everything, True),
}
PICTURES = ("Demo", "Folder")             # with --dir_demo: a folder of pictures without truth


class Run(NamedTuple):
    """One training job: a loader of training batches for a stage, and the test sets by name."""
    name: str
    train: Callable[..., DataLoader]
    test: dict[str, DataLoader]


def runs(args) -> list[Run]:
    """Return the training jobs that the flags describe: one, on --data_train and --data_test.

    Raises UserError for an unknown, empty or unpaired data set.
    """
    test = {name: loader.test_loader(loader.Images(items, ("image",), _reader(args, items, name)),
                                     args.n_threads, runtime.rank(), runtime.world())
            for name, items in _test_sets(args).items()}
    if args.test_only:
        return [Run(args.save, _no_training, test)]
    items = []
    for kind, name in enumerate(names(args.data_train)):
        chosen = select(args, name, "train")
        several = "+" in args.data_train
        items += [item._replace(kind=kind) for item in chosen] if several else chosen
    return [Run(args.save, functools.partial(_train, args, items, _reader(args, items, "training")), test)]


def names(joined: str) -> list[str]:
    """Split `A+B` into data set names."""
    found = [name for name in joined.split("+") if name]
    if not found:
        raise UserError(f"'{joined}' names no data set; known: {', '.join(DATASETS)}, or a folder under --dir_data")
    return found


def select(args, name: str, role: str) -> list[Item]:
    """Return the items of a data set that --data_range, or the default hold-out, gives to 'train' or 'test'."""
    items, splits = _open(args, name, role)
    shared = not splits and role_shared(args, name)
    count = len(items)
    if args.ranges:
        ranges = args.ranges
        first, last = ranges[0] if role == "train" or len(ranges) == 1 else ranges[1]
        if first > count:
            raise UserError(f"--data_range starts at image {first}, but {name} has {count}")
        chosen = items[first - 1:last]
        if role == "test" and len(ranges) == 1 and not args.test_only:
            chosen = items[:first - 1] + items[last:] if shared else items
            if not chosen:
                raise UserError(f"--data_range {first}-{last} leaves no image of {name} to test on; "
                                f"give both parts, as in --data_range 1-{max(count - 10, 1)}/{max(count - 9, 1)}-{count}")
        if last > count:
            runtime.log().say(f"{name}: --data_range ends at {last}; the set has {count} images, so it ends there")
        return chosen
    if not shared:
        return items
    held = max(1, min(50, count // 10))
    if count <= held:
        raise UserError(f"{name} has {count} image: too few to train on some and test on others")
    if role == "test":
        runtime.log().say(f"{name}: the last {held} of {count} images are held out for testing (--data_range says otherwise)")
    return items[-held:] if role == "test" else items[:-held]


def role_shared(args, name: str) -> bool:
    """Return whether a set without a test part of its own is to serve for training and for testing."""
    return name in names(args.data_train) and name in names(args.data_test)


def _test_sets(args) -> dict[str, list[Item]]:
    return {name: select(args, name, "test") for name in names(args.data_test)}


def _open(args, name: str, role: str) -> tuple[list[Item], bool]:
    """Return all items of a set, and whether it has a training and a test part of its own."""
    if name in PICTURES and args.dir_demo and role == "test":
        return paired.pictures(Path(args.dir_demo)), True
    root = Path(args.dir_data) / name
    if name in DATASETS:
        entry = DATASETS[name]
        return entry.open(root, role), entry.splits or paired.has_splits(root)
    if name == "Folder":
        raise UserError("the data set Folder is the folder of pictures that --dir_demo names; give --dir_demo")
    if "/" in name or not root.is_dir():
        raise UserError(f"unknown data set '{name}'; known: {', '.join(DATASETS)}, Folder with --dir_demo, "
                        f"or any folder under {args.dir_data} with input/ and target/")
    return paired.find(root, role), paired.has_splits(root)


def _reader(args, items: list[Item], what: str) -> Callable:
    """Return how files are opened: from the cache that --ext asks for, else decoded each time."""
    paired.check_sizes(items)
    root = Path(args.dir_data)
    sources = [path for item in items for path in item.images.values() if isinstance(path, Path)]
    if args.ext == "img" or not sources or not sources[0].is_relative_to(root):
        return image.read
    folder = root / "bin"
    try:
        places = cache.fill(folder, root, sources, runtime.rank() / runtime.world())
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS):
            raise
        runtime.log().say(f"{what}: no cache can be written in {folder}; images are decoded each time (--ext img)")
        return image.read
    return functools.partial(_cached, places)


def _cached(places: dict[Path, Path], source: Path):
    return cache.read(places[source])


def _no_training(stage) -> DataLoader:
    raise AssertionError("a test-only run has no training data")


def _train(args, items: list[Item], read: Callable, stage) -> DataLoader:
    """Return the loader of a stage's batches; UserError when the data lacks a target that the loss names."""
    targets = []
    for target in sorted(loss.targets(stage.loss)):
        lacking = [item for item in items if target not in item.images]
        if lacking and target in ("image", "mask"):
            raise UserError(f"--loss '{stage.loss}' needs the target '{target}', which {len(lacking)} of {len(items)} images of "
                            f"{args.data_train} lack; without it: --loss '{loss.without(stage.loss, target)}'")
        if not lacking:
            targets.append(target)
    share = loader.Images(items, tuple(targets), read, args.seed, stage.patch_size, not args.no_augment)
    steps = args.test_every or -(-len(items) // stage.batch_size)
    draws = loader.Draws(len(items), stage.batch_size, steps, args.seed, runtime.rank(), runtime.world())
    return loader.train_loader(share, draws, args.n_threads, pin=runtime.device().type == "cuda")
