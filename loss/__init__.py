"""Losses by name: the weighted sum of the terms (loss/terms.py) in a specification (loss/spec.py).

`1*L1+0.5*L1:mask` is L1 between prediction and target 'image' plus half the L1 between prediction and target 'mask'.
"""
from __future__ import annotations

from torch import Tensor, nn

from contract import Batch, Prediction
from loss import pretrained
from loss.pixel import added
from loss.spec import Part, listed, parse, targets, without, without_types
from loss.terms import TERMS, Term, described, parameters
from runtime.errors import UserError

__all__ = ["TERMS", "Loss", "Part", "Term", "described", "listed", "parse", "targets", "without", "without_types"]


def _make(part: Part, args) -> Term:
    parameters(part.type)                     # raises UserError if a parameter has no default
    try:
        term = TERMS[part.type](part.prediction, part.target, args, **dict(part.parameters))
    except pretrained.Missing as error:
        raise pretrained.Missing(f"the loss {part.type} needs {error}") from error
    if not callable(term):
        raise UserError(f"the function of the loss {part.type} must return a function (prediction, batch) -> scalar, "
                        f"but it returned {term!r:.60}")
    return term


def _without_missing(args) -> str:
    """Return --loss, with all its stages, without the terms whose pretrained networks are missing."""
    missing, specs = set(), args.loss.split(" / ")
    for part in (part for spec in specs for part in parse(spec)):
        try:
            _make(part, args)
        except pretrained.Missing:
            missing.add(part.type)
    return " / ".join(without_types(spec, missing) for spec in specs)


class Loss(nn.Module):
    """The weighted sum of the terms of a specification; UserError if a term is invalid or its pretrained network is missing."""

    def __init__(self, spec: str, args=None):
        super().__init__()
        self.parts = parse(spec)
        try:
            self.terms = [_make(part, args) for part in self.parts]
        except pretrained.Missing as error:
            raise UserError(f"{error}; without: --loss '{_without_missing(args)}'") from error
        self.modules_ = nn.ModuleList(term for term in self.terms if isinstance(term, nn.Module))

    def forward(self, prediction: Prediction, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted total and the value of every term by its name, unweighted.

        A name that occurs several times, as for one term with two parameter values, is numbered from the second on: 'SSIM', 'SSIM#2'.
        """
        values = [term(prediction, batch) for term in self.terms]
        for part, value in zip(self.parts, values):
            if not isinstance(value, Tensor) or value.ndim:
                what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.60}"
                raise UserError(f"the loss {part.name} must return a tensor with a single value and no dimension, but it returned {what}")
        total = added(part.weight * value for part, value in zip(self.parts, values))
        named: dict[str, Tensor] = {}
        for number, (part, value) in enumerate(zip(self.parts, values)):
            count = sum(part.name == before.name for before in self.parts[:number])
            named[f"{part.name}#{count + 1}" if count else part.name] = value
        return total, named
