"""Brings the numbers of a training step from the device to the program, on a GPU while the next step is computed."""
from collections import deque
from typing import Any

import torch
from torch import Tensor


class Late:
    """A queue of small tensors of a device, each with a note; up to `lag` of them stay in it, so that the program need not wait for them.

    Without lag a number is known at once. With a lag of 1 the program waits only for a step before the one that it has just begun.
    """

    def __init__(self, lag: int):
        self.lag = lag
        self.waiting: deque[tuple[Any, Tensor, torch.cuda.Event | None]] = deque()

    def put(self, note: Any, value: Tensor) -> None:
        """Add a tensor, and begin to copy it to the CPU."""
        event = None
        if value.device.type == "cuda":
            value = torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self.waiting.append((note, value, event))

    def take(self, lag: int | None = None) -> list[tuple[Any, list[float]]]:
        """Return the notes and numbers of all tensors but the last `lag` ones, by default the lag of the queue; wait for them."""
        found = []
        while len(self.waiting) > (self.lag if lag is None else lag):
            note, value, event = self.waiting.popleft()
            if event:
                event.synchronize()
            found.append((note, value.tolist()))
        return found
