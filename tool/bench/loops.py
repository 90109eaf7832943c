"""NSS and LDGP of Rain2Avoid in loops over pixels, written from the paper's description, to compare time and result with."""
import math

import numpy as np

PATCH, CELL, BINS, CELLS = 80, 8, 36, 4   # LDGP: side of a patch and of a cell in pixels, bins of 5 degrees, cells per side of a block
KERNEL = 10                               # LDGP: minimum length of a streak in pixels
REACH, COUNT = 3, 50                      # NSS: candidates are at most this many rows and columns away; number of references


def fused(rgb: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Return the rounded mean of 50 references, (H, W, 3) uint8, for an image and its map of rain (H, W); released sampling."""
    height, width = prior.shape
    result = rgb.copy()
    for row in range(height):
        for column in range(width):
            if prior[row, column] > 10:
                result[row, column] = _replaced(rgb, prior, row, column)
    return result


def _replaced(rgb: np.ndarray, prior: np.ndarray, row: int, column: int) -> np.ndarray:
    """Return the mean colour of a rain pixel over all references; its own if there is no candidate."""
    height, width = prior.shape
    candidates = [(y, x) for y in range(max(row - REACH, 0), min(row + REACH + 1, height))
                  for x in range(max(column - REACH, 0), min(column + REACH + 1, width)) if prior[y, x] == 0]
    if not candidates:
        return rgb[row, column]
    half = max(1, min(max(abs(y - row), abs(x - column)) for y, x in candidates))
    weights = []
    for y, x in candidates:
        distance = 0
        for down in range(-half, half + 1):
            for across in range(-half, half + 1):
                here, there = (row + down, column + across), (y + down, x + across)
                here_inside, there_inside = (0 <= a < height and 0 <= b < width for a, b in (here, there))
                if not here_inside or prior[here] == 0:
                    for channel in range(3):
                        ours = int(rgb[here][channel]) if here_inside else 0
                        theirs = int(rgb[there][channel]) if there_inside else 0
                        distance += abs(ours - theirs)
        weights.append(1 / max(distance ** 0.5, 1e-4))
    chances = np.random.RandomState(0).random_sample(COUNT)       # the released program seeds its numbers anew at every pixel
    cumulated = np.cumsum(weights) / sum(weights)
    chosen = np.minimum(np.searchsorted(cumulated, chances, side="right"), len(candidates) - 1)
    return np.rint(np.mean([rgb[candidates[place]] for place in chosen], axis=0)).astype(np.uint8)


def prior(rgb: np.ndarray) -> np.ndarray:
    """Return LDGP's map of rain, (H, W) uint8, of an image (H, W, 3) uint8."""
    height, width = rgb.shape[:2]
    degrees = angle(rgb)
    if degrees == 0:
        return _opened(_bright(_grey(rgb)))
    upright = _opened(_bright(_grey(_rotated(rgb, degrees))))
    back = _rotated(upright[..., None], -degrees)[..., 0]
    sine, cosine = (abs(function(math.radians(degrees))) for function in (math.sin, math.cos))
    top, left = int(width * sine * cosine), int(height * sine * cosine)
    return back[top:top + height, left:left + width]


def angle(rgb: np.ndarray) -> int:
    """Return the angle in degrees by which the streaks of an image become vertical: the most frequent one of its patches."""
    votes = np.zeros(180, int)
    for top in range(0, rgb.shape[0] - PATCH + 1, PATCH):
        for left in range(0, rgb.shape[1] - PATCH + 1, PATCH):
            votes[_direction(_grey(rgb[top:top + PATCH, left:left + PATCH]).astype(float))] += 1
    found = int(votes.argmax()) if votes.any() else 0
    return 0 if found in (85, 90) else found - 180 if found > 90 else found


def _direction(grey: np.ndarray) -> int:
    """Return the dominant gradient direction of a patch in degrees, by histograms of oriented gradients in overlapping blocks."""
    blocks = PATCH // CELL - CELLS + 1
    size = CELLS * CELL
    covers = [sum(0 <= cell - block < CELLS for block in range(blocks)) for cell in range(PATCH // CELL)]
    total = np.zeros(BINS)
    for by in range(blocks):
        for bx in range(blocks):
            block = np.zeros((CELLS, CELLS, BINS))
            for i in range(size):
                for j in range(size):
                    _vote(block, grey, by * CELL + i, bx * CELL + j, i, j)
            block /= np.sqrt((block ** 2).sum()) + 0.1 * block.size
            block = np.minimum(block, 0.2)
            block /= np.sqrt((block ** 2).sum()) + 1e-3
            for cy in range(CELLS):
                for cx in range(CELLS):
                    total += block[cy, cx] / (covers[by + cx] * covers[bx + cy])       # rows and columns are swapped as released
    return int(total.argmax()) * 180 // BINS


def _vote(block: np.ndarray, grey: np.ndarray, y: int, x: int, i: int, j: int) -> None:
    """Add the gradient of the pixel (y, x), which is (i, j) in the block, to the nearest cells and bins."""
    across = grey[y, x + 1] - grey[y, x - 1] if 0 < x < PATCH - 1 else 0.0
    down = grey[y + 1, x] - grey[y - 1, x] if 0 < y < PATCH - 1 else 0.0
    half = CELLS * CELL / 2
    size = math.hypot(across, down) * math.exp(-((i - half) ** 2 + (j - half) ** 2) / (2 * CELL ** 2))
    place = math.atan2(down, across) * BINS / math.pi - 0.5
    low = math.floor(place)
    vertical, horizontal = (i + 0.5) / CELL - 0.5, (j + 0.5) / CELL - 0.5
    for cy in (math.floor(vertical), math.floor(vertical) + 1):
        for cx in (math.floor(horizontal), math.floor(horizontal) + 1):
            if 0 <= cy < CELLS and 0 <= cx < CELLS:
                share = size * (1 - abs(vertical - cy)) * (1 - abs(horizontal - cx))
                block[cy, cx, low % BINS] += share * (1 - (place - low))
                block[cy, cx, (low + 1) % BINS] += share * (place - low)


def _grey(rgb: np.ndarray) -> np.ndarray:
    """Return the luma, (H, W) int, in fixed point."""
    red, green, blue = (rgb[..., channel].astype(int) for channel in range(3))
    return (9798 * red + 19235 * green + 3735 * blue + 16384) >> 15


def _rotated(image: np.ndarray, degrees: int) -> np.ndarray:
    """Return an image (H, W, C) rotated on a canvas that contains it, by OpenCV's fixed-point rule: 1/32 pixel, border 255."""
    height, width, channels = image.shape
    sine, cosine = math.sin(degrees * math.pi / 180), math.cos(degrees * math.pi / 180)
    rows, columns = int(height * abs(cosine) + width * abs(sine)), int(height * abs(sine) + width * abs(cosine))
    x0 = -cosine * (columns / 2) + sine * (rows / 2) + width / 2
    y0 = -sine * (columns / 2) - cosine * (rows / 2) + height / 2
    result = np.empty((rows, columns, channels), np.uint8)
    for row in range(rows):
        for column in range(columns):
            x = (round(cosine * column * 1024) + round((-sine * row + x0) * 1024) + 16) >> 5
            y = (round(sine * column * 1024) + round((cosine * row + y0) * 1024) + 16) >> 5
            for channel in range(channels):
                total = 512
                for down, share in ((0, 32 - (y & 31)), (1, y & 31)):
                    for right, part in ((0, 32 - (x & 31)), (1, x & 31)):
                        there = (y >> 5) + down, (x >> 5) + right
                        inside = 0 <= there[0] < height and 0 <= there[1] < width
                        total += share * part * (int(image[there][channel]) if inside else 255)
                result[row, column, channel] = total >> 10
    return result


def _bright(grey: np.ndarray) -> np.ndarray:
    """Return 255 where a pixel is above the rounded mean of 5 x 5 pixels, else 0."""
    height, width = grey.shape
    result = np.zeros((height, width), np.uint8)
    for row in range(height):
        for column in range(width):
            total = 0
            for y in range(row - 2, row + 3):
                for x in range(column - 2, column + 3):
                    total += int(grey[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])
            result[row, column] = 255 * (grey[row, column] > round(total / 25))
    return result


def _opened(lines: np.ndarray) -> np.ndarray:
    """Return the map after an opening by a vertical line: the minimum, then the maximum of the rows y - 5 to y + 4."""
    for pick in (min, max):
        result = np.empty_like(lines)
        for row in range(lines.shape[0]):
            for column in range(lines.shape[1]):
                result[row, column] = pick(lines[max(row - KERNEL // 2, 0):row + KERNEL // 2, column])
        lines = result
    return lines
