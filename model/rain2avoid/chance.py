"""Random numbers that depend on where they are used only, not on order, strips or device."""
import torch
from torch import Tensor

WORD = (1 << 32) - 1


def uniform(seed: int, rows: Tensor, columns: Tensor, count: int) -> Tensor:
    """Return numbers above 0 and below 1, (N, count) float64, one for each pixel (rows and columns, (N,) int64) and reference."""
    start = int(_mixed(torch.tensor([seed & WORD])))
    pixels = _mixed(_mixed(rows + start) + columns)
    numbers = _mixed(_mixed(torch.arange(count, device=rows.device) + 0x3C6EF372))
    return _mixed(pixels[:, None] ^ numbers).double().add_(0.5).div_(WORD + 1)


def _mixed(word: Tensor) -> Tensor:
    """Return int64 words as 32 bits well mixed: the tensor is overwritten; multiply, fold the high bits into the low ones."""
    word.bitwise_and_(WORD)
    high = torch.bitwise_right_shift(word, 16)
    for factor in (0x7FEB352D, 0x21F0AAAD):                       # below 2^31: no product passes 63 bits
        word.bitwise_xor_(high).mul_(factor).bitwise_and_(WORD)
        torch.bitwise_right_shift(word, 15, out=high)
    return word.bitwise_xor_(high)
