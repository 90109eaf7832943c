"""Make batches from items; random choices depend only on (seed, epoch, position), not on worker processes or torchrun processes."""
import gc
import signal
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

import contract
from contract import Batch, Item, Sample
from data import image, source, weather
from data.packed import Packed
from data.quarantine import name_of
from data.source import View
from data.transform import augment
from runtime.errors import Failure, UserError, short

Key = tuple[int, int, int]                # epoch, position in the epoch, index of the item
TRIES = 20                                # unreadable images in a row after which a sample is given up


class Images(Dataset):
    """The samples of a list of items; `read` decodes a file, `targets` names the images that a sample contains besides the input.

    bad: names of the items that are in quarantine when the program starts (see data/quarantine.py).
    """

    def __init__(self, items: Sequence[Item], targets: tuple[str, ...], read: Callable[[Path | str], np.ndarray] = image.read,
                 seed: int = 0, patch_size: int = 0, turns: str = "", bad: Container[str] = ()):
        self.items, self.targets, self.read = items if isinstance(items, Packed) else Packed(items), targets, read
        self.seed, self.patch_size, self.turns, self.bad = seed, patch_size, turns, bad

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: Key | int) -> Sample:
        """Return the sample of a key (epoch, position, index), or of an index alone.

        In a running training (epoch > 0) an image that cannot be read is replaced by another one of its kind, which depends only
        on the seed and the key; the sample states this in `trouble`. Before the training only an image in `bad` is replaced, and
        any other raises UserError. Raises Failure if no image can be read.
        """
        epoch, position, index = key if isinstance(key, tuple) else (0, 0, key)
        trouble: list[tuple[str, str]] = []
        while len(trouble) < TRIES:
            item = self.items[index]
            try:
                return self._sample(epoch, position, item)._replace(trouble=trouble)
            except UserError as error:
                if not epoch and name_of(item) not in self.bad:
                    raise
                trouble.append((name_of(item), str(error)))
                alike = np.flatnonzero(self.items.kinds == item.kind)
                index = int(alike[np.random.default_rng((self.seed, epoch, position, len(trouble), 3)).integers(len(alike))])
        raise Failure(f"{TRIES} training images, one after the other, cannot be read any more; the last one: {trouble[-1][1]}")

    def _sample(self, epoch: int, position: int, item: Item) -> Sample:
        images = {name: source.read(item.images[name], self.read) for name in ("input", *self.targets) if name in item.images}
        if len({array.shape for array in images.values()}) > 1:
            sizes = ", ".join(f"{name} {array.shape[1]}x{array.shape[0]}" for name, array in images.items())
            raise UserError(f"the images of {item.name} differ in size (width x height): {sizes}")
        view = item.images["input"]
        drawn = isinstance(view, View) and view.how.startswith(source.DRAWN)
        if self.patch_size:
            rng = np.random.default_rng((self.seed, epoch, position))
            if drawn:
                images["height"] = weather.heights(*images["input"].shape[:2])       # is cropped and turned with the photo
            images = augment(images, self.patch_size, self.turns, rng)
            if drawn:
                found = source.draw(view, images["input"], images.pop("height"), rng)
                images |= {name: found[name] for name in images.keys() & found.keys()}      # 'any' has masks only now and then
        tensors = {name: image.to_tensor(array) for name, array in images.items()}
        return Sample(item.name, tensors.pop("input"), tensors, item.kind)


class Draws(Sampler):
    """The batches of one process in one epoch, as keys: `steps` batches of `batch_size` over all `world` processes.

    Every image is drawn once before any image is drawn again; process `rank` takes every `world`-th key of each batch. `sets`
    contains the indices of all images in one list; of several lists, one list is drawn at random for each sample.
    """

    def __init__(self, sets: list[list[int]], batch_size: int, steps: int, seed: int, rank: int = 0, world: int = 1):
        self.sets, self.batch_size, self.steps = sets, batch_size, steps
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch, self.start = 1, 0     # the epoch, and the number of its batches to skip

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        total = self.steps * self.batch_size
        chosen = np.random.default_rng((self.seed, self.epoch, 2)).integers(len(self.sets), size=total)
        order = np.empty(total, np.int64)
        for number, indices in enumerate(self.sets):
            places = np.flatnonzero(chosen == number)
            rounds = [np.random.default_rng((self.seed, self.epoch, turn, 1, number)).permutation(indices)
                      for turn in range(-(-len(places) // len(indices)))]
            order[places] = np.concatenate([*rounds, []])[:len(places)]
        for start in range(self.start * self.batch_size, total, self.batch_size):
            yield [(self.epoch, position, int(order[position]))
                   for position in range(start + self.rank, start + self.batch_size, self.world)]


class Read(NamedTuple):
    """Images of one size: their indices, (B, H, W, 3) uint8 (None if no image could be read), and the error messages of the others."""
    indices: list[int]
    pixels: torch.Tensor | None
    trouble: list[str]


class Pictures(Dataset):
    """Batches of images without targets, in 8 bits: worker processes then transfer a quarter of the bytes of float32."""

    def __init__(self, items: list[Item], batches: list[list[int]]):
        self.items, self.batches = items, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Read:
        """Return a batch; an image that cannot be read or differs in size from the first is omitted, with a message in `trouble`."""
        found: dict[int, np.ndarray] = {}
        trouble = []
        for index in self.batches[number]:
            try:
                pixels = source.read(self.items[index].images["input"])
                if pixels.shape != next(iter(found.values()), pixels).shape:
                    raise image.unreadable(self.items[index].images["input"], "its size differs from the size in its header")
                found[index] = pixels
            except UserError as error:
                trouble.append(str(error))
        return Read([*found], torch.from_numpy(np.stack([*found.values()])) if found else None, trouble)


def picture_loader(items: list[Item], batches: list[list[int]], workers: int, ahead: int) -> DataLoader:
    """Return a loader of batches of images; each worker process reads `ahead` batches in advance."""
    return DataLoader(Pictures(items, batches), batch_size=None, num_workers=workers, collate_fn=_handed, worker_init_fn=_begin_worker,
                      prefetch_factor=ahead if workers else None, generator=torch.Generator())


def _handed(batch: Read) -> Read:
    _share(batch.pixels)
    return batch


def collate(samples: list[Sample]) -> Batch:
    """Stack samples of equal size to a Batch."""
    batch = contract.collate(samples)
    _share(batch.input, *batch.targets.values(), batch.kind)
    return batch


def _share(*tensors: Tensor | None) -> None:
    """In a worker process, move tensors to the shared memory by which they are handed over; raises Failure if it cannot be enlarged.

    PyTorch would do so in a thread whose errors the main process does not learn, so that it waits for ever.
    """
    for tensor in tensors if get_worker_info() else ():
        try:
            if tensor is not None:
                tensor.share_memory_()
        except RuntimeError as error:
            raise Failure(f"a worker process cannot hand over {tensor.nbytes / 1e6:.1f} MB by shared memory ({short(error)}); /dev/shm is "
                          "perhaps too small, or the limit on the size of files (ulimit -f) or on the number of open files (ulimit -n) too "
                          "low: raise it, or use --n_threads 0") from error


def train_loader(dataset: Images, draws: Draws, workers: int, pin: bool) -> DataLoader:
    """Return a loader of training batches; set `loader.batch_sampler.epoch` (and `start`) before each epoch."""
    return DataLoader(dataset, batch_sampler=draws, num_workers=workers, collate_fn=collate, pin_memory=pin,
                      persistent_workers=workers > 0, worker_init_fn=_begin_worker, generator=torch.Generator())


def test_loader(dataset: Images, workers: int, rank: int = 0, world: int = 1) -> DataLoader:
    """Return a loader of whole images, one per batch; process `rank` reads every `world`-th image."""
    return DataLoader(dataset, sampler=range(rank, len(dataset), world), num_workers=workers, collate_fn=collate,
                      worker_init_fn=_begin_worker, generator=torch.Generator())


def _begin_worker(worker: int) -> None:
    """Make a worker process ignore Ctrl-C, which the terminal sends to all processes; the main process stops its workers.

    The garbage collector leaves out all objects of the main process: to visit them copies their memory to the worker.
    """
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
