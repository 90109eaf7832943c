"""Compares a program or a stored network with the network that it was made from."""
import math

import torch

from model.method import Method
from restore import programs
from restore.restorer import Restorer
from runtime.errors import Failure

LIMIT = 1e-4                              # greatest allowed absolute difference from the original network
LEAST_PSNR = 60.0                         # of a program in float16 against the original network, in dB of the range 0 to 1


def check(method: Method, exported: programs.Run, half: bool = False) -> str:
    """Compare a program with the Restorer's result over some image sizes and return the differences in words.

    One of them is larger than the windows of a network that has windows, and brighter on one side, since its means differ.

    Raises Failure if the greatest absolute difference is above LIMIT, or with `half` if the PSNR of a result is below LEAST_PSNR.
    """
    restorer = Restorer(method)
    unit, random, worst, mean, psnr = programs.least_unit(method), torch.Generator().manual_seed(0), 0.0, 0.0, math.inf
    sizes = [(1, 4 * unit, 5 * unit), (2, 3 * unit + 1, 4 * unit - 1), (1, 6 * unit + 3, 3 * unit + 5)]
    if method.windowed:
        sizes.append((1, 3 * unit + 1, 2 * method.windowed + 1))
    for count, height, width in sizes:
        x = torch.rand(count, 3, height, width, generator=random) * torch.linspace(0, 1, width)
        expected, size = restorer(x, may_tile=False), f"{count}x3x{height}x{width}"
        try:
            found = exported(x)
        except Exception as error:        # the runtimes raise many types of exceptions
            raise Failure(f"the exported file does not run on {size}: {str(error).partition(chr(10))[0]}") from error
        if found.shape != expected.shape:
            raise Failure(f"the exported file returns {'x'.join(map(str, found.shape))} for an input of {size}")
        difference = (found.double() - expected).abs()
        greatest, level = difference.max().item(), -10 * difference.square().mean().log10().item()
        if half and not level >= LEAST_PSNR:                # `not` is also true for NaN
            raise Failure(f"the exported file differs from the original by {greatest:.2g}, PSNR {level:.1f} dB, on {size}, where at least "
                          f"{LEAST_PSNR:g} dB are required; it was not saved; export without --half")
        if not half and not greatest <= LIMIT:
            raise Failure(f"the exported file differs from the original by {greatest:.2g} on {size}, more than {LIMIT:g}; it was not saved")
        worst, mean, psnr = max(worst, greatest), max(mean, difference.mean().item()), min(psnr, level)
    return f"greatest difference from the original {worst:.2g}" + (f", mean {mean:.2g}, PSNR at least {psnr:.1f} dB" if half else "")
