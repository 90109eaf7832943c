"""Measures in addition to PSNR and SSIM (--metrics): those of the table METRICS, and those of the package pyiqa.

To add a measure, write one function and add one line to METRICS.
"""
import difflib
import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metric import measure
from runtime import process
from runtime.errors import UserError

# measures of pyiqa that are not accepted: measured here already, or defined for whole sets of images only
EXCLUDED = ("psnr", "ssim", "fid", "fid_dinov2", "sfid", "inception_score", "clipscore")


class Metric(NamedTuple):
    """A measure: a function from (output, target), both RGB (1, 3, H, W) float64 (float32 on Apple's GPUs) in [0, 1], to a number."""
    function: Callable[[Tensor, Tensor], float]
    lower_is_better: bool = False


ALWAYS: dict[str, Metric] = {             # measured by every protocol; --metrics does not name them
    "psnr": Metric(measure.psnr),
    "ssim": Metric(measure.ssim),
}

METRICS: dict[str, Metric] = {
    "ms_ssim": Metric(measure.ms_ssim),
    "mae": Metric(measure.mae, lower_is_better=True),
}


def measured(name: str, output: Tensor, target: Tensor) -> float:
    """Return the value of a further measure by name, on RGB images."""
    if name in METRICS:
        return float(METRICS[name].function(output, target))
    model = _pyiqa(name, output.device)
    images = (output.float(),) if model.metric_mode == "NR" else (output.float(), target.float())      # NR: no-reference measure
    return float(model(*images))


def prepare(names: tuple[str, ...], device: torch.device) -> None:
    """Load the networks that `measured` uses; UserError if a measure is unknown, not installed or its weights are missing."""
    for name in names:
        if name in ALWAYS:
            raise UserError(f"{name} is always measured and is no further measure; further measures: {', '.join(METRICS)}")
        if name not in METRICS:
            _pyiqa(name, device)


def lower_is_better(name: str) -> bool:
    """Return True if a smaller value of a further measure means a better image; call `prepare` first."""
    return METRICS[name].lower_is_better if name in METRICS else bool(_pyiqa(name, process.device()).lower_better)


@functools.lru_cache
def _pyiqa(name: str, device: torch.device):
    built_in, close = ", ".join(METRICS), difflib.get_close_matches(name, METRICS, 1)
    hint = f"unknown measure '{name}'; did you mean {close[0]}? Otherwise: " if close else ""
    try:
        import pyiqa
    except ImportError as error:
        raise UserError(f"{hint}the measure '{name}' comes from the package pyiqa: pip install pyiqa; "
                        f"built-in measures: {built_in}") from error
    if name not in pyiqa.list_models() or name in EXCLUDED:
        raise UserError(f"{hint}pyiqa has no measure '{name}' that --metrics accepts; pyiqa.list_models() lists its measures; "
                        f"built-in measures: {built_in}")
    try:
        return pyiqa.create_metric(name, device=device)
    except OSError as error:
        raise UserError(f"pyiqa could not load the weights of '{name}' ({error}); it stores its weights in "
                        f"{torch.hub.get_dir()}/pyiqa and those of torchvision in {torch.hub.get_dir()}/checkpoints") from error
