"""How fast the loader of training batches is, and how much memory a worker process of it takes; docs/scaling.md has the numbers.

    python -m tests.loading patches                       # patches a second of one process, of 200 pairs of 321x481 in a new folder
    python -m tests.loading memory DIR_DATA SET [EPOCHS]  # memory of a worker process after each pass over a data set
"""
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

import option
from contract import Stage
from data import image, loader, runs


def training(folder: Path | str, name: str, patch: int = 64) -> DataLoader:
    """Return the loader of training batches of a data set of pairs, read from the image cache, as a training uses it."""
    stage = Stage(1, "1*L1", patch, 16)
    return runs(option.parse(["--dir_data", str(folder), "--data_train", name, "--no-audit"]))[0].train(stage)


def make(root: Path, pairs: int, height: int = 321, width: int = 481) -> Path:
    """Write pairs of random soft images as PNG files; return the folder."""
    rng = np.random.default_rng(0)
    for kind in ("input", "target"):
        (root / kind).mkdir(parents=True)
        for number in range(pairs):
            coarse = torch.from_numpy(rng.random((1, 3, 8, 12), np.float32))
            image.write(root / kind / f"{number:04}.png", image.to_array(torch.nn.functional.interpolate(coarse, (height, width))[0]))
    return root


def patches(batches: DataLoader, count: int) -> float:
    """Return the patches (pairs of crops, as tensors in a batch) that this process makes in a second of processor time."""
    images, keys = batches.dataset, [(1, number, number * 7919 % len(batches.dataset)) for number in range(count)]
    for key in keys[:count // 4]:
        images[key]                       # the first use opens the files
    start = time.process_time()
    for first in range(0, count, 16):
        loader.collate([images[key] for key in keys[first:first + 16]])
    return count / (time.process_time() - start)


def memory(batches: DataLoader, epochs: int) -> list[dict[str, int]]:
    """Return the memory of a worker process in MB, after 100 images and after each pass over all images, as `_rollup` measures it."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("fork").Process(target=_work, args=(batches, epochs, sender))
    worker.start()
    found = [receiver.recv() for _ in range(epochs + 1)]
    worker.join()
    return found


def _work(batches: DataLoader, epochs: int, sender) -> None:
    torch.set_num_threads(1)
    batches.worker_init_fn(0)
    images = batches.dataset
    for epoch in range(epochs + 1):
        for number in range(len(images) if epoch else 100):       # a few first, for what any use needs
            images[(epoch, number, number * 7919 % len(images))]
        sender.send(_rollup())


def _rollup() -> dict[str, int]:
    """Return the memory of this process in MB: Rss, Pss, and Private_Dirty, which is its own and was written."""
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return {line[0].rstrip(":"): round(int(line[1]) / 1024) for line in lines if line[0] in ("Rss:", "Pss:", "Private_Dirty:")}


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "patches":
        with tempfile.TemporaryDirectory() as place:
            make(Path(place, "set"), 200)
            batches = training(place, "set")
            print("; ".join(f"{patches(batches, 8000):,.0f}" for _ in range(5)), "patches of 64x64 a second and core")
    else:
        for epoch, line in enumerate(memory(training(*sys.argv[2:4], patch=8), int(sys.argv[4] if len(sys.argv) > 4 else 3))):
            print(f"after {epoch} passes: {line}", flush=True)
