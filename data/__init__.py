"""Build what a run reads: the loaders of training batches and the test sets."""
import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

import loss
from contract import Item, Run, TestSet
from data import audit, cache, headers, image, loader, quarantine, source
from data.benchmarks import BENCHMARKS
from data.choose import DEMO_NAMES, Chosen, choose, names, sets_to_test
from data.packed import Packed
from data.sets import DATASETS
from runtime import process
from runtime.errors import UserError
from runtime.files import UNWRITABLE

__all__ = ["BENCHMARKS", "DATASETS", "runs", "tests"]


def runs(args) -> list[Run]:
    """Return the training jobs that the flags describe: one job, on --data_train and --data_test.

    Raises UserError if a data set is unknown, empty or has images without a partner.
    """
    chosen = {name: choose(args, name, "test") for name in sets_to_test(args)}
    test = tests(args, chosen)
    if args.test_only:
        return [Run(args.save, None, test)]
    parts = [choose(args, name, "train").items for name in names(args.data_train)]
    items = parts[0] if len(parts) == 1 else [item._replace(kind=kind) for kind, part in enumerate(parts) for item in part]
    bad = quarantine.known(args)
    sound = quarantine.sound(items, bad)
    read = _reader(args, sound)
    headers.forget()
    if args.audit:
        kept = audit.audited(sound, {name: each.items for name, each in chosen.items()}, read, Path(args.dir_data) / "bin" / "leaks",
                             args.exclude_leaks)
        left_out = {id(item) for item in sound} - {id(item) for item in kept}
        items = [item for item in items if id(item) not in left_out]
    return [Run(args.save, functools.partial(_train, args, Packed(items), bad, read), test)]


def tests(args, chosen: dict[str, Chosen]) -> dict[str, TestSet]:
    """Return the test sets by name; the set of --dir_demo has the name of that folder or file.

    Without targets, with --test_only, a file is checked only when it is restored.
    """
    found: dict[str, TestSet] = {}
    for name, each in chosen.items():
        alone = args.test_only and not any("image" in item.images for item in each.items)
        read = image.read if alone else _reader(args, each.items)
        folder = Path(args.dir_demo).resolve() if name in DEMO_NAMES and args.dir_demo else None
        shown = ((folder.stem if folder.is_file() else folder.name) or "root") if folder else name.replace("/", "_")
        found[f"{shown}_2" if shown in found or (folder and shown in chosen) else shown] = TestSet(
            each.items, each.task, each.subset, read, str(folder) if folder else "")
    return found


def _train(args, items: Packed, bad: dict[str, str], read: Callable, stage) -> DataLoader:
    """Return the loader of a stage's training batches; UserError if images lack a target that the loss needs."""
    targets = []
    for target in sorted(loss.targets(stage.loss)):
        lacking = len(items) - items.counts[target]
        if lacking and target in ("image", "mask"):
            raise UserError(f"--loss '{stage.loss}' needs the target '{target}', which {lacking} of {len(items)} images of "
                            f"{args.data_train} lack; without it: --loss '{loss.without(stage.loss, target)}'")
        if not lacking:
            targets.append(target)
    sound = (item for item in items if quarantine.name_of(item) not in bad)
    sides = (max(source.size(item.images["image" if "image" in item.images else "input"])) for item in sound)
    if all(side < stage.patch_size for side in sides):
        raise UserError(f"--patch_size {stage.patch_size} is larger than every image of {args.data_train}; choose a smaller one")
    images = loader.Images(items, tuple(targets), read, args.seed, stage.patch_size, "" if args.no_augment else args.augment, bad)
    sets = [np.flatnonzero(items.kinds == kind) for kind in np.unique(items.kinds)] if args.balanced else [np.arange(len(items))]
    steps = args.test_every or -(-min(map(len, sets)) // stage.batch_size)
    draws = loader.Draws(sets, stage.batch_size, steps, args.seed, process.rank(), process.world())
    return loader.train_loader(images, draws, args.n_threads, pin=process.device().type == "cuda")


def _reader(args, items: list[Item]) -> Callable:
    """Return the function that reads a file: from the image cache (--ext sep), or decoding it each time (--ext img).

    Raises UserError if an image is damaged or the images of an item differ in size.
    """
    files = dict.fromkeys(str(path) for item in items for each in item.images.values() if (path := source.path_of(each)))
    headers.scan(files)
    source.check_sizes(items)
    root, folder = Path(args.dir_data), Path(args.dir_data) / "bin" / "1"
    start = cache.below(root)
    inside = [name for name in files if name.startswith(start) and not os.path.isabs(name[len(start):])
              and ".." not in name[len(start):].split(os.sep)]
    if args.ext == "img" or not inside:
        return image.read
    try:
        return cache.Cached(folder, root, cache.fill(folder, root, inside, _waiting))
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        process.log().say(f"the image cache in {root / 'bin'} cannot be written ({error.strerror}); images are decoded each time "
                          "(as with --ext img)")
        return image.read


def _waiting(holder: str) -> None:
    process.log().say(f"waiting for {holder}, which is filling the image cache", keep=False)

