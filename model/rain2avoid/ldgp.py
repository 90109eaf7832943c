"""LDGP, the locally dominant gradient prior: a map of the pixels of an image that may be rain streaks."""
import numpy as np

from model.rain2avoid import hog, rotate
from model.rain2avoid.confidence import confident

WINDOW = 5                                # side of the window whose mean a streak exceeds, in pixels
STRIP = 1 << 18                           # number of pixels processed at once by the threshold


def prior(rgb: np.ndarray, patch: int = 80, kernel: int = 10, confidence: float = 0.0) -> np.ndarray:
    """Return the map of rain, (H, W) uint8, of an image (H, W, 3) uint8; a higher value is a more certain streak.

    patch: side of the patches from which the direction of the streaks is estimated; kernel: minimum length of a streak, in pixels;
    confidence: streaks of a lower confidence are left out (see confidence.py); 0: the map of the paper.
    """
    rgb = _coloured(rgb)
    degrees = angle(rgb, patch)
    return confident(rgb, _drawn(rgb, degrees, kernel), degrees, confidence)


def _drawn(rgb: np.ndarray, degrees: int, kernel: int) -> np.ndarray:
    """Return the map of the streaks that are vertical after a rotation by `degrees`."""
    if degrees == 0:
        return streaks(rotate.grey(rgb), kernel)
    upright = streaks(rotate.turned(rgb, degrees), kernel)
    size = rgb.shape[:2]
    return rotate.turned(upright, -degrees, *rotate.corner(*size, degrees), size)


def angle(rgb: np.ndarray, patch: int = 80) -> int:
    """Return the angle in degrees, -85 to 80, by which to rotate the image (H, W, 3) uint8 so that its streaks become vertical.

    Raises ValueError if a patch is smaller than a block of the histograms.
    """
    if patch < hog.BLOCK * hog.CELL:
        raise ValueError(f"a patch of {patch} pixels is smaller than a block of {hog.BLOCK * hog.CELL}")
    rgb = _coloured(rgb)
    rows, columns = (side // patch for side in rgb.shape[:2])
    if not (rows and columns):
        return 0
    found = []
    for row in range(rows):
        line = rotate.grey(rgb[row * patch:(row + 1) * patch, :columns * patch])
        found.append(hog.angles(line.reshape(patch, columns, patch).swapaxes(0, 1)))
    degrees = int(np.bincount(np.concatenate(found)).argmax())    # the smallest, if several are equal
    if degrees in (85, 90):
        return 0
    return degrees - 180 if degrees > 90 else degrees


def streaks(grey: np.ndarray, kernel: int) -> np.ndarray:
    """Return 255 where a pixel of the image (H, W) uint8 is part of a bright vertical line of `kernel` pixels, else 0."""
    bright = np.empty_like(grey)
    height, width = grey.shape
    reach, rows = WINDOW // 2, max(STRIP // width, 1)
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        lines = np.clip(np.arange(start - reach, stop + reach), 0, height - 1)
        bright[start:stop] = _bright(grey[lines])
    return _sliding(_sliding(bright, kernel, np.minimum, 255), kernel, np.maximum, 0)


def _bright(grey: np.ndarray) -> np.ndarray:
    """Return 255 where a pixel is above the rounded mean of its window, else 0; the outer WINDOW // 2 rows are only context."""
    rows, columns = grey.shape[0] - WINDOW + 1, grey.shape[1]
    wide = np.pad(grey, ((0, 0), (WINDOW // 2, WINDOW // 2)), mode="edge").astype(np.int16)      # 25 * 255 fits
    sums = sum(wide[row:row + rows] for row in range(WINDOW))
    sums = sum(sums[:, column:column + columns] for column in range(WINDOW))
    area = WINDOW * WINDOW                                        # p > round(s / 25) is 25 p > s + 12 for integers, as 25 is odd
    inner = wide[WINDOW // 2:WINDOW // 2 + rows, WINDOW // 2:WINDOW // 2 + columns]
    return np.where(area * inner > sums + area // 2, np.uint8(255), np.uint8(0))


def _sliding(lines: np.ndarray, kernel: int, pick: np.ufunc, outside: int) -> np.ndarray:
    """Return for each row y of (H, W) the minimum or maximum (`pick`) of the rows y - kernel // 2 to y + (kernel - 1) // 2."""
    before = kernel // 2
    result = np.pad(lines, ((before, kernel - 1 - before), (0, 0)), constant_values=outside)
    reach = 1
    while reach < kernel:                                         # row y of the result combines the rows y to y + reach - 1
        step = min(reach, kernel - reach)
        result = pick(result[:-step], result[step:])
        reach += step
    return result


def _coloured(rgb: np.ndarray) -> np.ndarray:
    return np.repeat(rgb[..., None], 3, 2) if rgb.ndim == 2 else rgb
