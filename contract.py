"""Data types that the packages exchange: items, samples, batches, predictions, stages, runs, test sets and their results."""
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader


class Item(NamedTuple):
    """One entry of a data set: the sources of its images (see data/source.py), which are read when they are needed."""
    name: str
    images: dict[str, Any]                    # 'input', 'image' (the clean target), 'mask'; only those that exist
    kind: int = 0


class Sample(NamedTuple):
    """One image: degraded input and named targets, each (3, H, W) float32 in [0, 1]; kind: number of the weather or source data set.

    trouble: the path of each image that this one replaces because it could not be read, and the reason.
    """
    name: str
    input: Tensor
    targets: dict[str, Tensor]
    kind: int = 0
    trouble: Sequence[tuple[str, str]] = ()


@dataclass
class Batch:
    """Stacked samples: input and every target are (B, 3, H, W), kind is (B,); trouble is that of all samples."""
    name: list[str]
    input: Tensor
    targets: dict[str, Tensor]
    kind: Tensor
    trouble: Sequence[tuple[str, str]] = ()

    def __len__(self) -> int:
        return len(self.name)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device; copies from pinned memory are asynchronous."""
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
        return Batch(name or self.name, function(self.input), targets, function(self.kind), self.trouble)


def collate(samples: list[Sample]) -> Batch:
    """Stack samples of equal size to a Batch."""
    return Batch(name=[sample.name for sample in samples],
                 input=torch.stack([sample.input for sample in samples]),
                 targets={key: torch.stack([sample.targets[key] for sample in samples]) for key in samples[0].targets},
                 kind=torch.tensor([sample.kind for sample in samples]),
                 trouble=[each for sample in samples for each in sample.trouble])


Prediction = dict[str, "Tensor | list[Tensor]"]       # 'image' (B, 3, H, W) in [0, 1] is required


@dataclass(frozen=True)
class Stage:
    """Consecutive epochs with one loss, patch size and total batch size; `frozen` lists network parts that are not trained."""
    epochs: int
    loss: str
    patch_size: int
    batch_size: int
    name: str = ""
    frozen: tuple[str, ...] = ()


def plan_of(stages: list[Stage], steps: list[int]) -> list[str]:
    """Return one line for each stage, with the number of steps of each of its epochs."""
    lines, start = [], 0
    for number, (stage, count) in enumerate(zip(stages, steps), 1):
        if stage.epochs:
            lines.append(f"stage {number}{' ' + stage.name if stage.name else ''}: epochs {start + 1}-{start + stage.epochs}, "
                         f"{count} steps each, patch {stage.patch_size}, batch {stage.batch_size}, loss {stage.loss}"
                         + (f", frozen: {', '.join(stage.frozen)}" if stage.frozen else ""))
        else:
            lines.append(f"stage {number}: skipped, it has none of the {sum(each.epochs for each in stages)} epochs")
        start += stage.epochs
    return lines


class TestSet(NamedTuple):
    """Images to restore and, if they have a target, to measure.

    task: noise, rain, haze, snow, drops or ''; subset: which part of the data set this is, in words; read: decodes a file
    to (H, W, 3) uint8; source: the path that --dir_demo names, a folder, an image or a video, '' for a data set; results: the
    folder for the restored images, None for results-<name> in the folder of the experiment.
    """
    items: list[Item]
    task: str
    subset: str
    read: Callable[[Path | str], np.ndarray]
    source: str = ""
    results: Path | None = None
    __test__ = False  # type: ignore[misc]      # keeps pytest from collecting this class


Numbers = dict[str, dict[str, float]]         # by protocol: {'default': {'psnr': 30.1, …}}; {} without a target


class Outcome(NamedTuple):
    """Results of a test set that a run computed itself: each item, including the source of its 'result', and its numbers.

    weights: description of the weights that were used; parameters: number of parameters of the network.
    """
    data_set: str
    task: str
    subset: str
    rows: list[tuple[Item, Numbers]]
    weights: str
    parameters: int


def nothing(method) -> None:
    """Do nothing."""


def no_change(method, epoch: int) -> None:
    """Do nothing."""


def no_outcome(restorer) -> list[Outcome]:
    """Return no results."""
    return []


class Run(NamedTuple):
    """One training job: `train` returns the loader of a stage's batches (None: no training); `test` holds the test sets by name.

    begin: called with the method before the training. before_epoch: called with the method in training mode and the number of
    finished epochs. done: called with the Restorer of the trained method
    (restore/restorer.py); returns the results that the run computes itself. finish: (input, network output) -> result,
    (1, 3, H, W) each; applied to every whole image after the network. kept: log the training, save the weights and the
    state, and test them; otherwise only `done` uses the network. blind: the targets of the test sets must not select the
    best weights. plateau: end a stage when the mean loss of the last `plateau` epochs is less than 1 % below the mean loss
    of the same number of epochs before them; 0: never.
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
    before_epoch: Callable[..., None] = no_change
