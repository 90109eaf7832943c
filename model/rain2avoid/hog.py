"""The dominant edge direction of a patch, by histograms of oriented gradients in overlapping blocks (CVPR 2005, section 6)."""
from functools import cache

import numpy as np

BINS = 36                                 # bins of 5 degrees each, for directions without sign
CELL = 8                                  # side of a cell in pixels
BLOCK = 4                                 # side of a block in cells; neighbouring blocks are one cell apart
SIGMA = 8.0                               # standard deviation of a block's Gaussian window, in pixels
BATCH = 8                                 # number of patches processed at once


def angles(patches: np.ndarray) -> np.ndarray:
    """Return the dominant gradient direction of patches (N, P, P) uint8: (N,) in degrees, multiples of 5 from 0 to 175."""
    side = patches.shape[-1]
    windows, shares = _windows(side), _shares(side)
    parts = []
    for start in range(0, len(patches), BATCH):
        votes = _votes(patches[start:start + BATCH].astype(np.float32))
        columns = windows @ votes                                 # many small products, for which BLAS starts no threads
        cells = windows @ columns.swapaxes(1, 2)                  # (N, across, down, BINS)
        count = cells.shape[1] // BLOCK
        blocks = cells.reshape(len(votes), count, BLOCK, count, BLOCK, BINS)
        parts.append(np.einsum("nxdycb,ycxd->nb", _normalised(blocks), shares).argmax(1))
    return np.concatenate(parts) * (180 // BINS)


def _votes(patches: np.ndarray) -> np.ndarray:
    """Return the gradient magnitude of every pixel, divided between its two nearest bins, (N, P, P, BINS)."""
    across, down = np.zeros_like(patches), np.zeros_like(patches)
    across[:, :, 1:-1] = patches[:, :, 2:] - patches[:, :, :-2]
    down[:, 1:-1] = patches[:, 2:] - patches[:, :-2]
    magnitude = np.hypot(across, down).ravel()
    place = np.arctan2(down, across).ravel() * np.float32(BINS / np.pi) - np.float32(0.5)
    lower = np.floor(place)
    share = place - lower
    lower = lower.astype(np.int64) % BINS
    votes = np.zeros((magnitude.size, BINS), np.float32)
    pixels = np.arange(magnitude.size)
    votes[pixels, lower] = magnitude * (1 - share)
    votes[pixels, (lower + 1) % BINS] = magnitude * share
    return votes.reshape(*patches.shape, BINS)


def _normalised(blocks: np.ndarray) -> np.ndarray:
    """Return blocks (N, X, BLOCK, Y, BLOCK, BINS) normalised by L2-Hys: to unit length, clipped at 0.2, to unit length again."""
    blocks = blocks / (_length(blocks) + np.float32(0.1 * BLOCK * BLOCK * BINS))
    np.minimum(blocks, np.float32(0.2), out=blocks)
    blocks /= _length(blocks) + np.float32(1e-3)
    return blocks


def _length(blocks: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("nxdycb,nxdycb->nxy", blocks, blocks))[:, :, None, :, None, None]


@cache
def _windows(side: int) -> np.ndarray:
    """Return the weight of each pixel of a line in each cell of each block, (blocks * BLOCK, side): a tent times a Gaussian."""
    count, pixels = side // CELL - BLOCK + 1, np.arange(BLOCK * CELL)
    middles = (np.arange(BLOCK)[:, None] + 0.5) * CELL
    tents = np.clip(1 - np.abs(pixels + 0.5 - middles) / CELL, 0, None)
    tents *= np.exp(-(pixels - BLOCK * CELL / 2) ** 2 / (2 * SIGMA**2))
    windows = np.zeros((count, BLOCK, side), np.float32)
    for block in range(count):
        windows[block, :, block * CELL:(block + BLOCK) * CELL] = tents
    return windows.reshape(-1, side)


@cache
def _shares(side: int) -> np.ndarray:
    """Return 1 / number of blocks that cover a cell, (Y, BLOCK, X, BLOCK); rows and columns in blocks are swapped as in the release."""
    count = side // CELL - BLOCK + 1
    lines = np.arange(count)[:, None] + np.arange(BLOCK)
    covers = np.bincount(lines.ravel())
    times = covers[lines]                                         # (block, cell)
    return (1 / (times[:, None, None, :] * times.T[None, :, :, None])).astype(np.float32)
