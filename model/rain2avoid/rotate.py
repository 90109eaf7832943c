"""Rotation of 8-bit images in fixed-point arithmetic, so that the result is identical on every machine."""
import numpy as np

BORDER = 255                              # level of the pixels outside an image
STRIP = 1 << 16                           # number of output pixels processed at once
LANE = 20                                 # bits of one colour in a packed pixel: 255 * 1024 + 512 needs 18


def canvas(height: int, width: int, degrees: int) -> tuple[int, int]:
    """Return height and width, in pixels, of the canvas that contains an image rotated by `degrees`."""
    sine, cosine = _unsigned(degrees)
    return int(height * cosine + width * sine), int(height * sine + width * cosine)


def corner(height: int, width: int, degrees: int) -> tuple[int, int]:
    """Return the row and column at which an image of this size lies after a rotation by `degrees` and back."""
    sine, cosine = _unsigned(degrees)
    return int(width * sine * cosine), int(height * cosine * sine)


def turned(picture: np.ndarray, degrees: int, top: int = 0, left: int = 0, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return the image, (H, W) or (H, W, 3) uint8, rotated counter-clockwise, or the part of `size` at (top, left) of the canvas.

    The result is (H, W) grey levels, also for a colour image. The interpolation is bilinear; source coordinates are rounded to
    1/32 pixel, as in OpenCV's 8-bit warpAffine.
    """
    height, width = size or canvas(*picture.shape[:2], degrees)
    packed, step = _packed(picture), picture.shape[1] + 4
    (xx, xy, x0), (yx, yy, y0) = _source(*picture.shape[:2], degrees)
    columns = np.arange(left, left + width)
    across, down = _fixed(xx * columns), _fixed(yx * columns)
    result = np.empty((height, width), np.uint8)
    rows = max(STRIP // width, 1)
    for start in range(0, height, rows):
        lines = np.arange(top + start, top + min(start + rows, height))[:, None]
        x = (across + (_fixed(xy * lines + x0) + 16)) >> 5
        y = (down + (_fixed(yy * lines + y0) + 16)) >> 5
        at = np.clip(y >> 5, -2, picture.shape[0]) * step
        at += np.clip(x >> 5, -2, picture.shape[1]) + 2 * step + 2
        x &= 31
        y &= 31
        both = x * y
        total = packed.take(at) * (1024 - 32 * (x + y) + both)
        total += packed[1:].take(at) * (32 * x - both)
        total += packed[step:].take(at) * (32 * y - both)
        total += packed[step + 1:].take(at) * both
        result[start:start + rows] = _rounded(total, picture.ndim)
    return result


def grey(rgb: np.ndarray) -> np.ndarray:
    """Return the luma, (H, W) uint8, of an image (H, W, 3) uint8, with the weights of BT.601 in 15 bits."""
    red, green, blue = np.moveaxis(rgb.astype(np.int32), -1, 0)
    return _luma(red, green, blue).astype(np.uint8)


def _luma(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    return (9798 * red + 19235 * green + 3735 * blue + 16384) >> 15


def _unsigned(degrees: int) -> tuple[float, float]:
    radians = np.deg2rad(degrees)
    return abs(float(np.sin(radians))), abs(float(np.cos(radians)))


def _source(height: int, width: int, degrees: int) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the coefficients (of x, of y, constant) of the source x and of the source y of a canvas pixel."""
    sine, cosine = np.sin(degrees * np.pi / 180), np.cos(degrees * np.pi / 180)
    rows, columns = canvas(height, width, degrees)
    x, y = width / 2, height / 2                                  # the middle, which is mapped to the middle of the canvas
    right = (1 - cosine) * x - sine * y + (columns / 2 - x)
    below = sine * x + (1 - cosine) * y + (rows / 2 - y)
    scale = 1 / (cosine * cosine + sine * sine)                   # 1, apart from rounding
    cosine, sine = cosine * scale, sine * scale
    return (cosine, -sine, -cosine * right + sine * below), (sine, cosine, -sine * right - cosine * below)


def _fixed(value: np.ndarray) -> np.ndarray:
    """Return coordinates as integers in units of 1/1024 pixel."""
    return np.rint(value * 1024).astype(np.int64)


def _packed(picture: np.ndarray) -> np.ndarray:
    """Return the pixels as flat int64, with the three colours packed into one number, inside a border of two pixels."""
    inside = picture.astype(np.int64) if picture.ndim == 2 else sum(
        picture[..., channel].astype(np.int64) << LANE * channel for channel in range(3))
    border = BORDER if picture.ndim == 2 else BORDER * (1 + (1 << LANE) + (1 << 2 * LANE))
    return np.pad(inside, 2, constant_values=border).ravel()


def _rounded(total: np.ndarray, dimensions: int) -> np.ndarray:
    """Return sums with total weight 1024 as 8-bit levels; colours become their luma."""
    if dimensions == 2:
        return (total + 512) >> 10
    total += 512 * (1 + (1 << LANE) + (1 << 2 * LANE))
    return _luma(*((total >> (10 + LANE * channel)) & 255 for channel in range(3)))
