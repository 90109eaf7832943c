"""Which way a patch's edges run: histograms of oriented gradients in overlapping blocks (CVPR 2005, section 6)."""
from functools import cache

import numpy as np

BINS = 36                                 # of 5 degrees, unsigned
CELL = 8                                  # side of a cell in pixels
BLOCK = 4                                 # side of a block in cells; blocks step by one cell
SIGMA = 8.0                               # of the block's Gaussian window, in pixels
BATCH = 8                                 # patches worked on at once


def angles(patches: np.ndarray) -> np.ndarray:
    """Return the dominant gradient direction, (N,) in degrees, a multiple of 5 from 0 to 175, of (N, P, P) uint8 patches."""
    side = patches.shape[-1]
    windows, shares = _windows(side), _shares(side)
    parts = []
    for start in range(0, len(patches), BATCH):
        votes = _votes(patches[start:start + BATCH].astype(np.float32))
        columns = windows @ votes                                 # many small products: BLAS starts no threads, slow on busy cores
        cells = windows @ columns.swapaxes(1, 2)                  # (N, across, down, BINS)
        count = cells.shape[1] // BLOCK
        blocks = cells.reshape(len(votes), count, BLOCK, count, BLOCK, BINS)
        parts.append(np.einsum("nxdycb,ycxd->nb", _normalised(blocks), shares).argmax(1))
    return np.concatenate(parts) * (180 // BINS)


def _votes(patches: np.ndarray) -> np.ndarray:
    """Return every pixel's gradient magnitude shared between its two nearest bins, (N, P, P, BINS)."""
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
    """Return blocks (N, X, BLOCK, Y, BLOCK, BINS) at unit length, no entry above 0.2 of it before (L2-Hys)."""
    blocks = blocks / (_length(blocks) + np.float32(0.1 * BLOCK * BLOCK * BINS))
    np.minimum(blocks, np.float32(0.2), out=blocks)
    blocks /= _length(blocks) + np.float32(1e-3)
    return blocks


def _length(blocks: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("nxdycb,nxdycb->nxy", blocks, blocks))[:, :, None, :, None, None]


@cache
def _windows(side: int) -> np.ndarray:
    """Return what a line of pixels gives to each cell of each block along it, (blocks * BLOCK, side): tent times Gaussian."""
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
    """Return one over the number of blocks that cover a cell, (Y, BLOCK, X, BLOCK), rows and columns in blocks swapped as released."""
    count = side // CELL - BLOCK + 1
    lines = np.arange(count)[:, None] + np.arange(BLOCK)
    covers = np.bincount(lines.ravel())
    times = covers[lines]                                         # (block, cell)
    return (1 / (times[:, None, None, :] * times.T[None, :, :, None])).astype(np.float32)
