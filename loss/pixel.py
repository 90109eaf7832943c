"""Pixel losses: means over all elements of tensors in [0, 1]."""
from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from contract import Batch, Prediction
from runtime.arguments import is_whole
from runtime.errors import UserError


def l1(prediction: str, target: str, args) -> Callable:
    """Mean absolute difference."""
    return _compare(F.l1_loss, prediction, target)


def mse(prediction: str, target: str, args) -> Callable:
    """Mean squared difference."""
    return _compare(F.mse_loss, prediction, target)


def charbonnier(prediction: str, target: str, args, eps: float = 1e-3) -> Callable:
    """Mean of sqrt(difference² + eps²), a smooth form of L1 (Lai et al., CVPR 2017)."""
    if eps <= 0:
        raise UserError(f"--loss: the parameter eps of Charbonnier must be positive, not {eps:g}")
    return _compare(lambda a, b: torch.sqrt((a - b) ** 2 + eps**2).mean(), prediction, target)


def psnr(prediction: str, target: str, args, eps: float = 1e-8) -> Callable:
    """Negative PSNR in dB of each image, mean over images; eps is added to the mean squared error (DSRIR)."""
    if eps <= 0:
        raise UserError(f"--loss: the parameter eps of PSNR must be positive, not {eps:g}")
    return _compare(lambda a, b: 10 / math.log(10) * ((a - b) ** 2).mean((1, 2, 3)).add(eps).log().mean(), prediction, target)


def fft(prediction: str, target: str, args, ortho: bool = True) -> Callable:
    """Mean absolute difference of the real and imaginary parts of the 2-D Fourier transforms; ortho=true divides them by sqrt(H W)."""
    def parts(x: Tensor) -> Tensor:
        return torch.view_as_real(torch.fft.fft2(x, norm="ortho" if ortho else "backward"))
    return _compare(lambda a, b: parts(a - b).abs().mean(), prediction, target)


def _compare(function: Callable[[Tensor, Tensor], Tensor], prediction_key: str, target_key: str) -> Callable:
    """Return the term that compares two named tensors in float32; for a list of tensors it returns the sum over the list."""
    def term(prediction: Prediction, batch: Batch) -> Tensor:
        a, b = pick(prediction_key, prediction), pick(target_key, batch.targets, prediction)
        if isinstance(a, Tensor):
            return compared(a, pick_one(target_key, batch.targets, prediction))
        if not isinstance(b, Tensor) and len(b) != len(a):
            raise UserError(f"--loss compares '{prediction_key}', a list of {len(a)} tensors, with '{target_key}', a list of {len(b)}")
        return added(compared(x, b if isinstance(b, Tensor) else b[number]) for number, x in enumerate(a))

    def compared(a: Tensor, b: Tensor) -> Tensor:
        if any(m != n and 1 not in (m, n) for m, n in zip(reversed(a.shape), reversed(b.shape))):
            raise UserError(f"--loss compares '{prediction_key}' of the shape {tuple(a.shape)} with '{target_key}' of the shape "
                            f"{tuple(b.shape)}; their sizes and channels must agree")
        return function(a.float(), b.float())
    return term


def added(values: Iterable[Tensor]) -> Tensor:
    """Return the sum of one or more tensors, added from left to right."""
    return functools.reduce(operator.add, values)


def pick_one(key: str, *places: Mapping[str, Tensor | list[Tensor]]) -> Tensor:
    """Return the tensor that `pick` returns; UserError if it returns a list."""
    found = pick(key, *places)
    if not isinstance(found, Tensor):
        raise UserError(f"--loss names '{key}', a list of {len(found)} tensors, but this loss needs one tensor; the first is '{key}.0'")
    return found


def pick(key: str, *places: Mapping[str, Tensor | list[Tensor]]) -> Tensor | list[Tensor]:
    """Return the first tensor or list with a name; `name.N` is element N of a list, from 0; UserError if it does not exist.

    The places are the prediction alone, or the targets of the batch and then the prediction.
    """
    name, _, number = key.partition(".")
    for place in places:
        if name in place:
            if not number:
                return place[name]
            if not isinstance(place[name], Tensor) and is_whole(number, 0, len(place[name]) - 1):
                return place[name][int(number)]
            raise UserError(f"--loss names '{key}', but '{name}' has no element of that number")
    known = [", ".join(sorted(place)) for place in places]
    raise UserError(f"--loss names '{key}', which does not exist; the model predicts: {known[-1]}"
                    + "".join(f"; the batch has the targets: {targets}" for targets in known[:-1]))
