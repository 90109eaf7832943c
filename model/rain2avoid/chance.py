"""Random numbers that depend only on seed, pixel and reference, not on the order of computation, the strips or the device."""
import torch
from torch import Tensor

WORD = (1 << 32) - 1


def uniform(seed: int, rows: Tensor, columns: Tensor, count: int) -> Tensor:
    """Return random numbers above 0 and below 1, (N, count) float64: for N pixels (rows and columns, int64) and count references."""
    start = int(_mixed(torch.tensor([seed & WORD])))
    pixels = _mixed(_mixed(rows + start) + columns)
    numbers = _mixed(_mixed(torch.arange(count, device=rows.device) + 0x3C6EF372))
    return _mixed(pixels[:, None] ^ numbers).double().add_(0.5).div_(WORD + 1)


def _mixed(word: Tensor) -> Tensor:
    """Return a 32-bit hash of int64 words, by multiplications and xor with shifted bits; overwrites the tensor."""
    word.bitwise_and_(WORD)
    high = torch.bitwise_right_shift(word, 16)
    for factor in (0x7FEB352D, 0x21F0AAAD):                       # factors below 2^31, so that no product exceeds 63 bits
        word.bitwise_xor_(high).mul_(factor).bitwise_and_(WORD)
        torch.bitwise_right_shift(word, 15, out=high)
    return word.bitwise_xor_(high)
