"""Pixel losses: means over all elements of tensors in [0, 1]."""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from utility import UserError

if TYPE_CHECKING:
    from data.batch import Batch
    from model.method import Prediction


def l1(prediction: str, target: str, args) -> Callable:
    """Mean absolute difference."""
    return _compare(F.l1_loss, prediction, target)


def mse(prediction: str, target: str, args) -> Callable:
    """Mean squared difference."""
    return _compare(F.mse_loss, prediction, target)


def charbonnier(prediction: str, target: str, args) -> Callable:
    """Mean of sqrt(difference² + 1e-6), a smooth L1 (Lai et al., CVPR 2017)."""
    return _compare(lambda a, b: torch.sqrt((a - b) ** 2 + 1e-6).mean(), prediction, target)


def _compare(function: Callable[[Tensor, Tensor], Tensor], prediction_key: str, target_key: str) -> Callable:
    def term(prediction: Prediction, batch: Batch) -> Tensor:
        return function(pick(prediction_key, prediction), pick(target_key, batch.targets, prediction))
    return term


def pick(key: str, *places: dict[str, Tensor]) -> Tensor:
    """Return the first tensor of that name; UserError lists the names there are."""
    for place in places:
        if key in place:
            return place[key]
    known = ", ".join(sorted({name for place in places for name in place}))
    raise UserError(f"--loss names '{key}', but here are only: {known}")
