"""Measures beside PSNR and SSIM (--metrics): those of the table below, and any of the package pyiqa.

A new measure is one function and one line in METRICS.
"""
import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metric import measure
from runtime import process
from runtime.errors import UserError

NOT_FURTHER = ("psnr", "ssim", "fid", "fid_dinov2", "sfid", "inception_score", "clipscore")    # ours, or of whole sets


class Metric(NamedTuple):
    """A measure: (output, target), both RGB (1, 3, H, W) float64 in [0, 1], to a number (float32 on Apple's GPUs)."""
    function: Callable[[Tensor, Tensor], float]
    lower_is_better: bool = False


METRICS: dict[str, Metric] = {
    "ms_ssim": Metric(measure.ms_ssim),
    "mae": Metric(measure.mae, lower_is_better=True),
}


def measured(name: str, output: Tensor, target: Tensor) -> float:
    """Return a further measure by name, on RGB."""
    if name in METRICS:
        return float(METRICS[name].function(output, target))
    model = _pyiqa(name, output.device)
    images = (output.float(),) if model.metric_mode == "NR" else (output.float(), target.float())      # NR: without reference
    return float(model(*images))


def prepare(names: tuple[str, ...], device: torch.device) -> None:
    """Load what `measured` will need; UserError for a measure that is not known, not installed or has no weights."""
    for name in names:
        if name not in METRICS:
            _pyiqa(name, device)


def lower_is_better(name: str) -> bool:
    """Return whether a smaller value of a further measure means a better image; call `prepare` first."""
    return METRICS[name].lower_is_better if name in METRICS else bool(_pyiqa(name, process.device()).lower_better)


@functools.lru_cache
def _pyiqa(name: str, device: torch.device):
    built_in = ", ".join(METRICS)
    try:
        import pyiqa
    except ImportError as error:
        raise UserError(f"the measure '{name}' comes from the package pyiqa: pip install pyiqa; built in: {built_in}") from error
    if name not in pyiqa.list_models() or name in NOT_FURTHER:
        raise UserError(f"pyiqa has no measure '{name}' besides psnr and ssim; pyiqa.list_models() lists them; built in: {built_in}")
    try:
        return pyiqa.create_metric(name, device=device)
    except OSError as error:
        raise UserError(f"pyiqa could not get the weights of '{name}' ({error}); it keeps them in {torch.hub.get_dir()}/pyiqa "
                        "and torchvision's in checkpoints beside it") from error
