"""NSS, non-local stochastic sampling: what could be behind the rain, as many derained references as wanted.

Every pixel of rain takes the colour of a clean pixel nearby, the likelier the more alike their surroundings are. Kept
is only one number of 8 bits a pixel and reference, and pictures are worked on in strips: large ones need little memory.
"""
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.rain2avoid import chance

STRIP = 1 << 16                           # pixels of the picture worked on at once
CHUNK = 1 << 12                           # pixels drawn for at once
LANE = 20                                 # bits of a colour in a packed pixel: room for the sum of 4,000 colours
SAMPLINGS = ("seeded", "released")


@dataclass(frozen=True)
class Drawn:
    """The colours that were drawn for a picture (H, W, 3) uint8: which pixel takes its colour from where in which reference."""

    rgb: Tensor                           # (H, W, 3) uint8
    positions: Tensor                     # (N,) int64: the pixels replaced, row * W + column, rising
    steps: Tensor                         # (S,) int64: the way to each candidate, in the same measure
    choices: Tensor                       # (references, N) uint8: which step is taken

    def __len__(self) -> int:
        return len(self.choices)

    def reference(self, number: int) -> Tensor:
        """Return one derained reference, (H, W, 3) uint8."""
        flat, ways = self.rgb.reshape(-1, 3), self.steps.index_select(0, self.choices[number].int())
        result = flat.index_copy(0, self.positions, flat.index_select(0, ways.add_(self.positions)))
        return result.view_as(self.rgb)

    def colours(self, numbers: Tensor, some: Tensor) -> Tensor:
        """Return the mean colour that some of the pixels, (N,) places in `positions`, have in some references, (N, 3) float32."""
        flat, at = self.rgb.reshape(-1, 3).float(), self.positions[some]
        total = torch.zeros(len(at), 3, device=at.device)
        for choices in self.choices[numbers][:, some]:
            total += flat.index_select(0, self.steps.index_select(0, choices.int()).add_(at))
        return total.div_(max(len(numbers), 1))

    def fused(self) -> Tensor:
        """Return the mean of all references, rounded, (H, W, 3) uint8."""
        if not len(self.positions):
            return self.rgb.clone()
        flat, count = self.rgb.reshape(-1, 3), len(self)
        result, reach = flat.clone(), int(self.steps.abs().max())
        for at, choices in zip(self.positions.split(STRIP), self.choices.split(STRIP, 1)):
            first = max(int(at[0]) - reach, 0)
            around = flat[first:int(at[-1]) + reach + 1].long()
            packed = around[:, 0] + (around[:, 1] << LANE) + (around[:, 2] << 2 * LANE)
            total, start = torch.zeros_like(at), at - first
            for choice in choices:
                total += packed.index_select(0, self.steps.index_select(0, choice.int()).add_(start))
            for channel in range(3):
                sums = (total >> LANE * channel) & ((1 << LANE) - 1)
                result[at, channel] = torch.round(sums.double() / count).to(torch.uint8)
        return result.view_as(self.rgb)


@dataclass(frozen=True)
class Weighed:
    """What may be drawn for a picture (H, W, 3) uint8, without end: pixels, ways as in Drawn, and the candidates' weights."""

    rgb: Tensor                           # (H, W, 3) uint8
    positions: Tensor                     # (N,) int64
    steps: Tensor                         # (S,) int64
    cumulated: Tensor                     # (N, S) float32: the candidates' weights, summed up

    def colours(self, count: int, some: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean colour of some of the pixels, (N,) places in `positions`, in `count` new references, (N, 3) float32."""
        flat, at, cumulated = self.rgb.reshape(-1, 3).float(), self.positions[some], self.cumulated[some]
        chances = torch.rand(len(at), count, generator=generator).to(cumulated.device)
        choices = _chosen(cumulated, chances)
        return flat[self.steps[choices] + at[:, None]].mean(1)


def weigh(rgb: Tensor, prior: Tensor, threshold: int = 10, window: int = 7, power: float = 0.5, least: int = 3) -> Weighed:
    """Weigh the candidates of every pixel of rain, once; see `draw`."""
    parts = list(_strips(rgb, prior, threshold, window, power, least))
    positions, cumulated = (torch.cat([part[n] for part in parts]) for n in (0, 1))
    return Weighed(rgb, positions, _steps(window, rgb), cumulated)


def draw(rgb: Tensor, prior: Tensor, count: int = 50, threshold: int = 10, window: int = 7, power: float = 0.5,
         sampling: str = "seeded", seed: int = 0, least: int = 3) -> Drawn:
    """Draw `count` references of a picture (H, W, 3) uint8 whose prior (H, W) uint8 says where rain is, on their device.

    Pixels with a prior above `threshold` are replaced, those with 0 are candidates, in the window x window pixels around.
    A candidate's weight is 1 / distance**power; the distance is taken over least x least pixels, or the next larger odd
    window that has a clean pixel. 'seeded' draws every pixel and reference for itself, the same for one seed on any
    device; 'released' draws 50 numbers (`count`) once for all pixels, as the released program does, and heeds no seed.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"unknown sampling '{sampling}'; known: {', '.join(SAMPLINGS)}")
    width = prior.shape[1]
    shared = torch.from_numpy(np.random.RandomState(0).random_sample(count)).to(rgb.device)
    most, found = int((prior > threshold).sum()), 0
    positions = torch.empty(most, dtype=torch.int64, device=rgb.device)
    choices = torch.empty(count, most, dtype=torch.uint8, device=rgb.device)
    for pixels, cumulated in _strips(rgb, prior, threshold, window, power, least):
        for some, sums in zip(pixels.split(CHUNK), cumulated.split(CHUNK)):
            chances = shared if sampling == "released" else chance.uniform(seed, some // width, some % width, count)
            positions[found:found + len(some)] = some
            choices[:, found:found + len(some)] = _chosen(sums, chances).T
            found += len(some)
    return Drawn(rgb, positions[:found], _steps(window, rgb), choices[:, :found])


def _chosen(cumulated: Tensor, chances: Tensor) -> Tensor:
    """Return which candidate numbers from 0 to 1 fall on, (N, K) int32, of cumulated weights (N, S)."""
    return torch.searchsorted(cumulated, chances * cumulated[:, -1:], right=True, out_int32=True).clamp_(max=cumulated.shape[1] - 1)


def _strips(rgb: Tensor, prior: Tensor, threshold: int, window: int, power: float, least: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the pixels to replace, (N,) rising, and their candidates' weights summed up, (N, S) float64, strip by strip."""
    if not (least % 2 and window % 2 and 3 <= least <= window <= 15):
        raise ValueError(f"windows of {least} and {window} pixels: wanted are odd numbers from 3 to 15, the second not below the first")
    height, width = prior.shape
    rows = max(STRIP // width, 4 * window)
    for top in range(0, height, rows):
        pixels, weights = _weighed(rgb, prior, (top, min(top + rows, height)), threshold, _offsets(window), power, least)
        yield pixels, weights.cumsum(1)


def _steps(window: int, rgb: Tensor) -> Tensor:
    """Return how far each candidate lies from its pixel, (S,) int64, in pixels of a flat picture (H, W, 3)."""
    return torch.tensor([row * rgb.shape[1] + column for row, column in _offsets(window)], device=rgb.device)


def _offsets(window: int) -> list[tuple[int, int]]:
    """Return the rows and columns from a pixel to its candidates, in raster order, itself left out."""
    reach = range(-(window // 2), window // 2 + 1)
    return [(row, column) for row in reach for column in reach if row or column]


def _weighed(rgb: Tensor, prior: Tensor, rows: tuple[int, int], threshold: int, offsets: list[tuple[int, int]], power: float,
             least: int) -> tuple[Tensor, Tensor]:
    """Return the pixels to replace in some rows that have candidates, (N,), and their candidates' weights, (N, S) float64."""
    (top, bottom), width = rows, prior.shape[1]
    halo = 2 * offsets[-1][0]                                     # a candidate's surroundings reach as far again
    first, last = max(top - halo, 0), min(bottom + halo, len(prior))
    margin = (halo, halo, halo - top + first, halo - last + bottom)
    clean = prior[first:last] == 0
    inside = F.pad(clean, margin)                                 # beyond the border are no candidates
    row, column = (prior[top:bottom] > threshold).nonzero().T
    span = width + 2 * halo
    middles = (row + halo) * span + column + halo
    candidates = torch.stack([inside.view(-1).index_select(0, middles + (down * span + across)) for down, across in offsets])
    some = candidates.any(0).nonzero()[:, 0]
    if len(some) < len(middles):
        row, column, candidates = row[some], column[some], candidates[:, some]
    image = F.pad(rgb[first:last].permute(2, 0, 1).to(torch.int16), margin)
    kept = F.pad(clean, margin, value=True).to(torch.int16)
    weights = _distances(image, kept, row, column, _sides(candidates, offsets, least), offsets).double()
    weights.pow_(power).clamp_(min=1e-4).reciprocal_().mul_(candidates)
    return (row + top) * width + column, weights.T.contiguous()


def _sides(candidates: Tensor, offsets: list[tuple[int, int]], least: int) -> Tensor:
    """Return half the side of each pixel's reference window, (N,): `least`, or what it takes to reach a candidate (S, N)."""
    sides = torch.full(candidates.shape[1:], offsets[-1][0], device=candidates.device)
    for side in range(offsets[-1][0] - 1, least // 2 - 1, -1):
        ring = [number for number, (row, column) in enumerate(offsets) if max(abs(row), abs(column)) <= side]
        sides[candidates[ring].any(0)] = side
    return sides


def _distances(image: Tensor, kept: Tensor, row: Tensor, column: Tensor, sides: Tensor,
               offsets: list[tuple[int, int]]) -> Tensor:
    """Return how unlike the surroundings of each pixel and each candidate are, (S, N) int32.

    image is (3, h + 4 reach, w + 4 reach) int16, kept likewise: 1 where a pixel of the surroundings counts; row
    and column, (N,), count from the first pixel inside the margin.
    """
    reach = offsets[-1][0]
    height, width = (side - 2 * reach for side in kept.shape)     # of the surroundings of all pixels
    kept = kept[reach:reach + height, reach:reach + width]
    corner = (row + reach - 1) * (width - 2) + column + reach - 1
    larger = []                                                   # the few pixels with larger windows, and where these lie
    for side in range(2, reach + 1):
        members = (sides == side).nonzero()[:, 0]
        if len(members):
            line = torch.arange(-side, side + 1, device=image.device)
            middles = (row[members] + reach) * width + column[members] + reach
            larger.append((members, (line[:, None] * width + line).view(-1, 1) + middles))
    result = torch.empty(len(offsets), len(row), dtype=torch.int32, device=image.device)
    tall, wide = image.shape[1:]
    for number, (down, across) in enumerate(offsets):
        if (down, across) < (0, 0):
            continue
        right, left = max(across, 0), max(-across, 0)
        apart = (image[:, down:, right:wide - left] - image[:, :tall - down, left:wide - right]).abs_()
        apart = apart[0].add_(apart[1]).add_(apart[2])            # between every pixel and the one at this offset
        for index, y, x in ((number, reach, reach - left), (len(offsets) - 1 - number, reach - down, reach - right)):
            counted = apart[y:y + height, x:x + width] * kept
            lines = counted[:-2] + counted[1:-1]
            lines += counted[2:]
            squares = lines[:, :-2] + lines[:, 1:-1]
            squares += lines[:, 2:]                               # of 3 x 3 pixels: 27 * 255 fits into 16 bits
            result[index] = squares.view(-1).index_select(0, corner)
            for members, around in larger:
                result[index, members] = sum(counted.view(-1).index_select(0, at).int() for at in around)
    return result
