"""The data that the rooms hand each other: items, samples, batches, predictions, stages, runs, test sets and their results."""
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader


class Item(NamedTuple):
    """One entry of a data set: the sources of its images (see data/source.py), read when they are needed."""
    name: str
    images: dict[str, Any]                    # 'input', 'image' (the clean target), 'mask' where there is one
    kind: int = 0


class Sample(NamedTuple):
    """One image: degraded input (3, H, W) float32 in [0, 1], named targets alike, kind = weather or set of origin."""
    name: str
    input: Tensor
    targets: dict[str, Tensor]
    kind: int = 0


@dataclass
class Batch:
    """Samples stacked: input and every target are (B, 3, H, W), kind is (B,)."""
    name: list[str]
    input: Tensor
    targets: dict[str, Tensor]
    kind: Tensor

    def __len__(self) -> int:
        return len(self.name)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device; copies from pinned memory do not block."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory (called by the DataLoader)."""
        return self._each(Tensor.pin_memory)

    def chunks(self, count: int) -> Iterator["Batch"]:
        """Yield the batch in at most `count` parts of nearly equal size."""
        count = min(count, len(self))
        for number in range(count):
            part = slice(len(self) * number // count, len(self) * (number + 1) // count)
            yield self._each(operator.itemgetter(part), self.name[part])

    def _each(self, function: Callable[[Tensor], Tensor], name: list[str] | None = None) -> "Batch":
        targets = {key: function(value) for key, value in self.targets.items()}
        return Batch(name or self.name, function(self.input), targets, function(self.kind))


def collate(samples: list[Sample]) -> Batch:
    """Stack samples of equal size to a Batch."""
    return Batch(name=[sample.name for sample in samples],
                 input=torch.stack([sample.input for sample in samples]),
                 targets={key: torch.stack([sample.targets[key] for sample in samples]) for key in samples[0].targets},
                 kind=torch.tensor([sample.kind for sample in samples]))


Prediction = dict[str, "Tensor | list[Tensor]"]       # 'image' (B, 3, H, W) in [0, 1] is required


@dataclass(frozen=True)
class Stage:
    """A part of the training: epochs of one loss, patch size and total batch size; `frozen` names network parts."""
    epochs: int
    loss: str
    patch_size: int
    batch_size: int
    name: str = ""
    frozen: tuple[str, ...] = ()


class TestSet(NamedTuple):
    """Images to restore and, where they have a target, to measure.

    task: noise, rain, haze, snow, drops or ''; subset: which part of the data set it is, in words; read: decodes a file to
    (H, W, 3) uint8.
    """
    items: list[Item]
    task: str
    subset: str
    read: Callable[[Path], np.ndarray]
    __test__ = False  # type: ignore[misc]      # pytest: this is no test


Numbers = dict[str, dict[str, float]]         # by protocol: {'default': {'psnr': 30.1, …}}; {} where there is no target


class Outcome(NamedTuple):
    """Results of a test set that a run has made by itself: each item, with the source of its 'result', and its numbers.

    weights: which weights made them, in words; parameters: how many the network has.
    """
    data_set: str
    task: str
    subset: str
    rows: list[tuple[Item, Numbers]]
    weights: str
    parameters: int


def nothing(method) -> None:
    """Do nothing."""


def no_outcome(restorer) -> list[Outcome]:
    """Return no results."""
    return []


class Run(NamedTuple):
    """One training job: `train` makes the loader of a stage's batches (None: nothing is trained); `test` has the test sets by name.

    begin: called with the method before the training. done: called with what applies the trained method (restore.Restorer);
    returns the results that the run makes by itself. finish: (input, answer) -> result, (1, 3, H, W) each, applied to every whole
    image after the network. kept: the weights and the state are saved and tested; else the network serves `done` alone.
    blind: the targets of the test sets must not choose the best weights. plateau: end a stage when the mean loss of that many
    epochs is less than 1 % below that of as many before; 0: never.
    """
    name: str
    train: Callable[[Stage], DataLoader] | None
    test: dict[str, TestSet]
    begin: Callable[..., None] = nothing
    done: Callable[..., list[Outcome]] = no_outcome
    finish: Callable[[Tensor, Tensor], Tensor] | None = None
    kept: bool = True
    blind: bool = False
    plateau: int = 0
