"""What a data set hands out and a model gets: the only place that knows a batch's shape."""
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader


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
            yield self._each(lambda tensor, part=part: tensor[part], self.name[part])

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


def nothing(method) -> None:
    """Do nothing."""


class Run(NamedTuple):
    """One training job: a loader of training batches for a stage, and the test sets by name.

    `begin` gets the new network's method, `done` the trained one's. A run that is not `kept` trains a network for what
    `done` makes of it alone; without `train` nothing is trained. One that is `blind` must not choose its best weights by
    the test sets' truth.
    """
    name: str
    train: Callable[..., DataLoader] | None
    test: dict[str, DataLoader]
    begin: Callable[..., None] = nothing
    done: Callable[..., None] = nothing
    kept: bool = True
    blind: bool = False
