"""NSS, non-local stochastic sampling: draws any number of derained references of a rainy image.

Every rain pixel gets the colour of a clean pixel nearby. The probability of a clean pixel increases with the similarity of the
two neighbourhoods. To save memory, a reference is stored as one 8-bit number per rain pixel, and an image is processed in strips.
"""
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.rain2avoid import chance

STRIP = 1 << 16                           # number of image pixels processed at once
CHUNK = 1 << 12                           # number of rain pixels for which colours are drawn at once
LANE = 20                                 # bits of one colour in a packed pixel: enough for the sum of 4,000 colours
SAMPLINGS = ("seeded", "released")


@dataclass(frozen=True)
class Drawn:
    """The references of an image (H, W, 3) uint8: for each rain pixel and reference, the pixel from which the colour is taken."""

    rgb: Tensor                           # (H, W, 3) uint8
    positions: Tensor                     # (N,) int64: the replaced pixels, row * W + column, ascending
    steps: Tensor                         # (S,) int64: offset from a pixel to each candidate, as row * W + column
    choices: Tensor                       # (references, N) uint8: index into `steps`

    def __len__(self) -> int:
        return len(self.choices)

    def reference(self, number: int) -> Tensor:
        """Return one derained reference, (H, W, 3) uint8."""
        flat, offsets = self.rgb.reshape(-1, 3), self.steps.index_select(0, self.choices[number].int())
        result = flat.index_copy(0, self.positions, flat.index_select(0, offsets.add_(self.positions)))
        return result.view_as(self.rgb)

    def colours(self, numbers: Tensor, some: Tensor) -> Tensor:
        """Return the mean colour, (N, 3) float32, of some pixels, (N,) indices into `positions`, over the references `numbers`."""
        flat, at = self.rgb.reshape(-1, 3).float(), self.positions[some]
        total = torch.zeros(len(at), 3, device=at.device)
        for choices in self.choices[numbers][:, some]:
            total += flat.index_select(0, self.steps.index_select(0, choices.int()).add_(at))
        return total.div_(max(len(numbers), 1))

    def fused(self) -> Tensor:
        """Return the rounded mean of all references, (H, W, 3) uint8."""
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
    """The weights of all candidates of an image (H, W, 3) uint8, from which any number of references can be drawn."""

    rgb: Tensor                           # (H, W, 3) uint8
    positions: Tensor                     # (N,) int64, as in Drawn
    steps: Tensor                         # (S,) int64, as in Drawn
    cumulated: Tensor                     # (N, S) float64: cumulative sums of the candidates' weights

    def colours(self, count: int, some: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean colour, (N, 3) float32, of some pixels, (N,) indices into `positions`, over `count` new references."""
        flat, at, cumulated = self.rgb.reshape(-1, 3).float(), self.positions[some], self.cumulated[some]
        chances = torch.rand(len(at), count, generator=generator).to(cumulated.device)
        choices = _chosen(cumulated, chances)
        return flat[self.steps[choices] + at[:, None]].mean(1)


def weigh(rgb: Tensor, prior: Tensor, threshold: int = 10, window: int = 7, power: float = 0.5, least: int = 3) -> Weighed:
    """Return the weights of the candidates of every rain pixel; for the parameters see `draw`."""
    parts = list(_strips(rgb, prior, threshold, window, power, least))
    positions, cumulated = (torch.cat([part[n] for part in parts]) for n in (0, 1))
    return Weighed(rgb, positions, _steps(window, rgb), cumulated)


def draw(rgb: Tensor, prior: Tensor, count: int = 50, threshold: int = 10, window: int = 7, power: float = 0.5,
         sampling: str = "seeded", seed: int = 0, least: int = 3) -> Drawn:
    """Draw `count` references of an image (H, W, 3) uint8 with the map of rain `prior`, (H, W) uint8, on the same device.

    Pixels with a prior above `threshold` are replaced. Their candidates are the pixels with prior 0 in a window of window x
    window pixels. The weight of a candidate is 1 / distance**power; the distance is computed over least x least pixels, or the
    next larger odd window that has a clean pixel. With 'seeded', each pixel and reference has its own random number, which
    depends on `seed` but not on the device. With 'released', the same `count` numbers are used for all pixels, as in the
    released program, and `seed` is ignored. Raises ValueError for an unknown sampling and for invalid windows.
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
    """Return the candidates, (N, K) int32, that numbers from 0 to 1 select by the cumulative weights (N, S)."""
    return torch.searchsorted(cumulated, chances * cumulated[:, -1:], right=True, out_int32=True).clamp_(max=cumulated.shape[1] - 1)


def _strips(rgb: Tensor, prior: Tensor, threshold: int, window: int, power: float, least: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield for each strip the pixels to replace, (N,) ascending, and their candidates' cumulative weights, (N, S) float64."""
    if not (least % 2 and window % 2 and 3 <= least <= window <= 15):
        raise ValueError(f"windows of {least} and {window} pixels: both must be odd numbers from 3 to 15, the second not smaller")
    height, width = prior.shape
    rows = max(STRIP // width, 4 * window)
    for top in range(0, height, rows):
        pixels, weights = _weighed(rgb, prior, (top, min(top + rows, height)), threshold, _offsets(window), power, least)
        yield pixels, weights.cumsum(1)


def _steps(window: int, rgb: Tensor) -> Tensor:
    """Return the offset of each candidate from its pixel, (S,) int64, as row * W + column of an image (H, W, 3)."""
    return torch.tensor([row * rgb.shape[1] + column for row, column in _offsets(window)], device=rgb.device)


def _offsets(window: int) -> list[tuple[int, int]]:
    """Return the offsets (rows, columns) from a pixel to its candidates in raster order, without the pixel itself."""
    reach = range(-(window // 2), window // 2 + 1)
    return [(row, column) for row in reach for column in reach if row or column]


def _weighed(rgb: Tensor, prior: Tensor, rows: tuple[int, int], threshold: int, offsets: list[tuple[int, int]], power: float,
             least: int) -> tuple[Tensor, Tensor]:
    """Return the pixels of some rows to replace that have candidates, (N,), and the weights of the candidates, (N, S) float64."""
    (top, bottom), width = rows, prior.shape[1]
    halo = 2 * offsets[-1][0]                                     # a candidate's neighbourhood has the same reach again
    first, last = max(top - halo, 0), min(bottom + halo, len(prior))
    margin = (halo, halo, halo - top + first, halo - last + bottom)
    clean = prior[first:last] == 0
    inside = F.pad(clean, margin)                                 # there are no candidates outside the image
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
    """Return half the side of each pixel's window, (N,): the smallest, `least` or more, that has a candidate, (S, N) bool."""
    sides = torch.full(candidates.shape[1:], offsets[-1][0], device=candidates.device)
    for side in range(offsets[-1][0] - 1, least // 2 - 1, -1):
        ring = [number for number, (row, column) in enumerate(offsets) if max(abs(row), abs(column)) <= side]
        sides[candidates[ring].any(0)] = side
    return sides


def _distances(image: Tensor, kept: Tensor, row: Tensor, column: Tensor, sides: Tensor,
               offsets: list[tuple[int, int]]) -> Tensor:
    """Return the distance between the neighbourhoods of each pixel and each of its candidates, (S, N) int32.

    image is (3, h + 4 reach, w + 4 reach) int16. kept is (h + 4 reach, w + 4 reach), 1 where a pixel of a neighbourhood counts.
    row and column, (N,), count from the first pixel inside the margin.
    """
    reach = offsets[-1][0]
    height, width = (side - 2 * reach for side in kept.shape)     # of the area of all neighbourhoods
    kept = kept[reach:reach + height, reach:reach + width]
    corner = (row + reach - 1) * (width - 2) + column + reach - 1
    larger = []                                                   # the few pixels with larger windows, and the indices of these windows
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
        apart = apart[0].add_(apart[1]).add_(apart[2])            # absolute difference of every pixel and the pixel at this offset
        for index, y, x in ((number, reach, reach - left), (len(offsets) - 1 - number, reach - down, reach - right)):
            counted = apart[y:y + height, x:x + width] * kept
            lines = counted[:-2] + counted[1:-1]
            lines += counted[2:]
            squares = lines[:, :-2] + lines[:, 1:-1]
            squares += lines[:, 2:]                               # sums of 3 x 3 pixels: 27 * 255 fits into 16 bits
            result[index] = squares.view(-1).index_select(0, corner)
            for members, around in larger:
                result[index, members] = sum(counted.view(-1).index_select(0, at).int() for at in around)
    return result
