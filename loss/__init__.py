"""Losses by name, written as `weight*Type:prediction:target + …`.

`1*L1+0.5*L1:mask` is L1 between prediction and target 'image' plus half the L1 between prediction and target 'mask'.
"""
from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from contract import Batch, Prediction
from loss import contrast, lpips, pixel, pretrained, segmentation, ssim, uncertainty
from runtime.errors import UserError

Term = Callable[["Prediction", "Batch"], Tensor]

TERMS: dict[str, Callable[..., Term]] = {      # name: make(prediction key, target key, args) -> Term
    "L1": pixel.l1,
    "MSE": pixel.mse,
    "Charbonnier": pixel.charbonnier,
    "PSNR": pixel.psnr,
    "SSIM": ssim.ssim,
    "Uncertainty": uncertainty.uncertainty,
    "SCR": contrast.scr,
    "HCR": contrast.hcr,
    "PCL": contrast.pcl,
    "POCL": contrast.pocl,
    "LPISL": lpips.lpisl,
    "UBS": segmentation.ubs,
}


class Part(NamedTuple):
    """One term of a specification."""
    weight: float
    type: str
    prediction: str
    target: str

    @property
    def name(self) -> str:
        """The term's name in the log: 'L1' for the image, else 'L1:mask'."""
        return self.type + "".join(f":{key}" for key in dict.fromkeys((self.prediction, self.target)) if key != "image")


def parse(spec: str) -> list[Part]:
    """Read a loss specification; UserError says what is wrong with it."""
    parts = []
    for text in _texts(spec):
        weight, star, rest = text.strip().partition("*")
        keys = [key.strip() for key in rest.split(":")]
        try:
            number = float(weight)
        except ValueError:
            number = math.nan
        if not star or not math.isfinite(number) or len(keys) > 3 or not all(keys):
            raise UserError(f"--loss '{spec}': '{text.strip()}' is not weight*Type, as in 1*L1 or 0.5*L1:mask; "
                            "terms are joined by +")
        if keys[0] not in TERMS:
            raise UserError(f"unknown loss '{keys[0]}' in --loss '{spec}'; known: {', '.join(TERMS)}")
        prediction = keys[1] if len(keys) > 1 else "image"
        parts.append(Part(number, keys[0], prediction, keys[2] if len(keys) > 2 else prediction))
    return parts


def _texts(spec: str) -> list[str]:
    return re.split(r"(?<!\de)\+", spec)             # but not the plus of 1e+0


def targets(spec: str) -> set[str]:
    """Return the names of the targets that a specification compares with."""
    return {part.target for part in parse(spec)}


def without(spec: str, target: str) -> str:
    """Return the specification without the terms that need a target, or `1*L1` when none is left."""
    return "+".join(text.strip() for text in _texts(spec) if parse(text)[0].target != target) or "1*L1"


def without_types(spec: str, types: set[str]) -> str:
    """Return the specification without the terms of some types, or `1*L1` when none is left."""
    return "+".join(text.strip() for text in _texts(spec) if parse(text)[0].type not in types) or "1*L1"


def _make(part: Part, args) -> Term:
    try:
        return TERMS[part.type](part.prediction, part.target, args)
    except pretrained.Missing as error:
        raise pretrained.Missing(f"the loss {part.type} needs {error}") from error


def _without_missing(args) -> str:
    """Return --loss, all stages of it, without the terms whose networks are missing."""
    missing, specs = set(), args.loss.split(" / ")
    for part in (part for spec in specs for part in parse(spec)):
        try:
            _make(part, args)
        except pretrained.Missing:
            missing.add(part.type)
    return " / ".join(without_types(spec, missing) for spec in specs)


def listed(losses: dict[str, float]) -> str:
    """Return the values of terms by name as text; one that is minus a PSNR says how many dB that is."""
    return ", ".join(f"{name} {value:.5g}" + (f" ({-value:.2f} dB)" if name.partition(":")[0] == "PSNR" else "")
                     for name, value in losses.items())


class Loss(nn.Module):
    """The weighted sum of the terms of a specification."""

    def __init__(self, spec: str, args=None):
        super().__init__()
        self.parts = parse(spec)
        try:
            self.terms = [_make(part, args) for part in self.parts]
        except pretrained.Missing as error:
            raise UserError(f"{error}; without: --loss '{_without_missing(args)}'") from error
        self.modules_ = nn.ModuleList(term for term in self.terms if isinstance(term, nn.Module))

    def forward(self, prediction: Prediction, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted total and the value of every term by its name, unweighted and detached."""
        values = [term(prediction, batch) for term in self.terms]
        total = sum(part.weight * value for part, value in zip(self.parts, values))
        return total, {part.name: value.detach() for part, value in zip(self.parts, values)}
