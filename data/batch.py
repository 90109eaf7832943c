"""What a data set hands out and a model gets: the only place that knows a batch's shape."""
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


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
