"""The table of loss terms. To add a term, write one function and add one line to TERMS."""
from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import Tensor

from contract import Batch, Prediction
from loss import contrast, lpips, pixel, segmentation, ssim, uncertainty
from runtime.errors import UserError

Term = Callable[["Prediction", "Batch"], Tensor]

TERMS: dict[str, Callable[..., Term]] = {      # name: make(prediction key, target key, args, parameter=default, ...) -> Term
    "L1": pixel.l1,
    "MSE": pixel.mse,
    "Charbonnier": pixel.charbonnier,
    "PSNR": pixel.psnr,
    "FFT": pixel.fft,
    "SSIM": ssim.ssim,
    "MSSSIM": ssim.ms_ssim,
    "Uncertainty": uncertainty.uncertainty,
    "SCR": contrast.scr,
    "HCR": contrast.hcr,
    "PCL": contrast.pcl,
    "POCL": contrast.pocl,
    "LPISL": lpips.lpisl,
    "UBS": segmentation.ubs,
}


def parameters(name: str) -> dict[str, bool | int | float | str]:
    """Return the parameters of a term with their defaults: the arguments of its function from the fourth on.

    Raises UserError if a parameter has no default, or one that --loss cannot read.
    """
    found = {each.name: each.default for each in list(inspect.signature(TERMS[name]).parameters.values())[3:]}
    for key, default in found.items():
        if type(default) not in (bool, int, float, str):
            raise UserError(f"the parameter {key} of the loss {name} needs a default that is a number, a boolean or a string; "
                            "state it in the function of the term")
    return found


def described(name: str) -> str:
    """Return a term's parameters and defaults in the form of a specification, as in 'eps=0.001'; '' if it has none."""
    return ", ".join(f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in parameters(name).items())
