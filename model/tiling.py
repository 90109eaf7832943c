"""Pure functions that apply a function fn to images x, (B, C, H, W): padded, in tiles, or as the mean over flips and rotations."""
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Restore = Callable[[Tensor], Tensor]


def extended(x: Tensor, multiple: int, least: int = 1) -> Tensor:
    """Return x padded right and below until height and width are multiples of `multiple` and at least `least`.

    The padding is a reflection of the image; if the image is too small for that, the last row and column are repeated.
    """
    height, width = x.shape[-2:]
    below, right = (-max(side, least) % multiple + max(least - side, 0) for side in (height, width))
    if not (below or right):
        return x
    return F.pad(x, (0, right, 0, below), mode="reflect" if below < height and right < width else "replicate")


def padded(x: Tensor, fn: Restore, multiple: int, least: int = 1) -> Tensor:
    """Return fn(x) for a function that needs sides as `extended` gives them: extend x, apply fn, crop the result."""
    return fn(extended(x, multiple, least))[..., :x.shape[-2], :x.shape[-1]]


def tiled(x: Tensor, fn: Restore, tile: int, overlap: int) -> Tensor:
    """Return fn(x) computed on overlapping tiles of side `tile` and blended.

    Where two tiles overlap, the outer 3/8 of the overlap on each side are discarded, because they lack context, and the
    middle quarter is blended linearly. The result equals fn of the whole image if the radius of the receptive field is at
    most 3/8 of the overlap and nothing in fn pools over the whole image. The tiles start every `tile - overlap` pixels; the last
    one ends at the border. The result is on the device of x; fn may compute on another device.
    """
    height, width = x.shape[-2:]
    result, sums = None, (x.new_zeros(height), x.new_zeros(width))        # sums of the blending weights, by row and by column
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
    """Return the number of tiles in which `tiled` computes an image of this size."""
    return len(_starts(height, tile, overlap)) * len(_starts(width, tile, overlap))


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    if side <= tile:
        return [0]
    return [*range(0, side - tile, tile - overlap), side - tile]


def _ramp(start: int, size: int, side: int, overlap: int, like: Tensor) -> Tensor:
    """Return the blending weights of a tile along one axis: 1 inside, falling to 0 towards edges inside the image."""
    position = torch.arange(size, device=like.device, dtype=torch.float32) + 0.5
    skip, ramp = overlap * 3 / 8, max(overlap / 4, 1)
    weight = torch.ones_like(position)
    if start > 0:
        weight = weight.minimum((position - skip) / ramp)
    if start + size < side:
        weight = weight.minimum((size - position - skip) / ramp)
    return weight.clamp(0, 1)


def ensemble(x: Tensor, fn: Restore) -> Tensor:
    """Return the mean of fn over the 8 flips and rotations of x, each transformed back (self-ensemble, EDSR section 3.4)."""
    total = torch.zeros_like(x)
    for turns in range(4):
        for flip in (False, True):
            view = torch.rot90(x.flip(-1) if flip else x, turns, (-2, -1))
            back = torch.rot90(fn(view), -turns, (-2, -1))
            total += back.flip(-1) if flip else back
    return total / 8
