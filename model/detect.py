"""Finds out why a training step must be skipped: which loss, gradient, weight or module's output is not finite."""
import math
from functools import partial

import torch
from torch import Tensor, nn

from runtime import process
from runtime.errors import Diverged

ADVICE = ("the last good state and weights are kept; try --rollback 3, a lower --lr, --gclip, or another --precision; "
          "--detect names the module that fails first")


class Detector:
    """Checks the output of every module in each forward pass; `first` is the name of the first one that is not finite, or ''.

    Call `reset` before each pass.
    """

    def __init__(self, network: nn.Module):
        self.first = ""
        for name, module in network.named_modules():
            if not list(module.children()):
                module.register_forward_hook(partial(self._check, f"{name} ({type(module).__name__})"))

    def reset(self) -> None:
        """Forget what was found."""
        self.first = ""

    def _check(self, name: str, module: nn.Module, given: tuple, output: object) -> None:
        if not self.first and isinstance(output, Tensor) and not is_finite(output.detach()):
            self.first = name


def is_finite(value: Tensor) -> bool:
    """Return whether all elements are finite; tensors of whole numbers always are."""
    return not value.is_floating_point() or bool(value.sum().isfinite()) or bool(value.isfinite().all())


def not_finite(values: dict[str, Tensor]) -> str:
    """Return the name of the first tensor with an element that is not finite, '' if there is none."""
    return next((name for name, value in values.items() if not is_finite(value)), "")


def broken(method: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """Return the name of the first weight, buffer or value of the optimiser that is not finite, '' if there is none."""
    moments = {f"{key} of the optimizer ({number})": value for number, values in enumerate(optimizer.state.values())
               for key, value in values.items() if isinstance(value, Tensor)}
    return not_finite(method.state_dict() | moments)


def check(method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raise Diverged in all processes if a weight or a value of the optimiser is not finite in any of them."""
    name = next(filter(None, process.gather([broken(method, optimizer)])), "")
    if name:
        raise Diverged(f"the weights or the optimizer are not finite any more, in {name}; {ADVICE}")


def bad_loss(values: dict[str, float], most: float, detector: Detector | None) -> str:
    """Return what is wrong with the loss of a step and its terms, '' if it is finite and at most `most`."""
    total = values["loss"]
    if math.isfinite(total) and total <= most:
        return ""
    terms = [name for name, value in values.items() if name != "loss" and not math.isfinite(value)]
    return (f"its loss is {total:.4g}" + (f" (not finite: {', '.join(terms)})" if terms else "")
            + (f"; the output of {detector.first} is the first that is not finite" if detector and detector.first else ""))
