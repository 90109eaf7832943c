"""Ways to run a restoring function on any image: pure functions on (x, fn), x is (B, C, H, W)."""
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Restore = Callable[[Tensor], Tensor]


def extended(x: Tensor, multiple: int, least: int = 1) -> Tensor:
    """Return x continued right and below by reflection, until height and width are multiples, `least` or more."""
    height, width = x.shape[-2:]
    below, right = (-max(side, least) % multiple + max(least - side, 0) for side in (height, width))
    if not (below or right):
        return x
    return F.pad(x, (0, right, 0, below), mode="reflect" if below < height and right < width else "replicate")


def padded(x: Tensor, fn: Restore, multiple: int, least: int = 1) -> Tensor:
    """Return fn(x) for a function whose height and width must be multiples, `least` or more: extend x, then crop."""
    return fn(extended(x, multiple, least))[..., :x.shape[-2], :x.shape[-1]]


def tiled(x: Tensor, fn: Restore, tile: int, overlap: int) -> Tensor:
    """Return fn(x) computed on overlapping tiles of side `tile` and blended.

    Where tiles overlap, the outer 3/8 of the overlap, which lack context, are left out and the middle quarter is
    blended linearly. The result equals the whole image's if the receptive field's radius fits in that 3/8 and
    nothing in fn pools over the whole image. Starts are multiples of overlap // 8 * 8 where sizes allow it.
    The result is put together where x is: tiles of a picture on the CPU wait there, wherever fn computes.
    """
    height, width = x.shape[-2:]
    result, sums = None, (x.new_zeros(height), x.new_zeros(width))        # of the weights, by row and by column
    for top in _starts(height, tile, overlap):
        for left in _starts(width, tile, overlap):
            part = fn(x[..., top:top + tile, left:left + tile]).to(x.device)
            rows, columns = part.shape[-2:]
            down, across = _ramp(top, rows, height, overlap, x), _ramp(left, columns, width, overlap, x)
            if result is None:
                result = part.new_zeros(*part.shape[:2], height, width)
            result[..., top:top + rows, left:left + columns] += part * (down[:, None] * across)
            if top == 0:
                sums[1][left:left + columns] += across
        sums[0][top:top + rows] += down
    return result.div_(sums[0][:, None]).div_(sums[1])


def tiles(height: int, width: int, tile: int, overlap: int) -> int:
    """Return on how many tiles `tiled` computes an image of that size."""
    return len(_starts(height, tile, overlap)) * len(_starts(width, tile, overlap))


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    if side <= tile:
        return [0]
    return [*range(0, side - tile, tile - overlap), side - tile]


def _ramp(start: int, size: int, side: int, overlap: int, like: Tensor) -> Tensor:
    """Return the blending weight along one axis: 1 inside, falling to 0 towards edges that are not the image's."""
    position = torch.arange(size, device=like.device, dtype=torch.float32) + 0.5
    skip, ramp = overlap * 3 / 8, max(overlap / 4, 1)
    weight = torch.ones_like(position)
    if start > 0:
        weight = weight.minimum((position - skip) / ramp)
    if start + size < side:
        weight = weight.minimum((size - position - skip) / ramp)
    return weight.clamp(0, 1)


def ensemble(x: Tensor, fn: Restore) -> Tensor:
    """Return the mean of fn over the 8 flips and turns of x, each turned back (self-ensemble, EDSR section 3.4)."""
    total = torch.zeros_like(x)
    for turns in range(4):
        for flip in (False, True):
            view = torch.rot90(x.flip(-1) if flip else x, turns, (-2, -1))
            back = torch.rot90(fn(view), -turns, (-2, -1))
            total += back.flip(-1) if flip else back
    return total / 8
