"""Turning 8-bit pictures in fixed-point arithmetic, so that every machine gives the same bits."""
import numpy as np

BORDER = 255                              # what lies around a picture
STRIP = 1 << 16                           # output pixels worked on at once
LANE = 20                                 # bits of a colour in a packed pixel: 255 * 1024 + 512 takes 18


def canvas(height: int, width: int, degrees: int) -> tuple[int, int]:
    """Return height and width, in pixels, of the canvas that holds a picture turned by `degrees`."""
    sine, cosine = _unsigned(degrees)
    return int(height * cosine + width * sine), int(height * sine + width * cosine)


def corner(height: int, width: int, degrees: int) -> tuple[int, int]:
    """Return the row and column at which a picture of this size lies after turning forth and back by `degrees`."""
    sine, cosine = _unsigned(degrees)
    return int(width * sine * cosine), int(height * cosine * sine)


def turned(picture: np.ndarray, degrees: int, top: int = 0, left: int = 0, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return the (H, W) or (H, W, 3) uint8 picture turned counter-clockwise, or the part of `size` at (top, left) of the canvas.

    A colour picture is returned in grey. Bilinear; source coordinates are rounded to 1/32 pixel, as by 8-bit warpAffine.
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
    """Return the luma, (H, W) uint8, of an (H, W, 3) uint8 picture, in the 15-bit weights of BT.601."""
    red, green, blue = np.moveaxis(rgb.astype(np.int32), -1, 0)
    return _luma(red, green, blue).astype(np.uint8)


def _luma(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    return (9798 * red + 19235 * green + 3735 * blue + 16384) >> 15


def _unsigned(degrees: int) -> tuple[float, float]:
    radians = np.deg2rad(degrees)
    return abs(float(np.sin(radians))), abs(float(np.cos(radians)))


def _source(height: int, width: int, degrees: int) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the rows (by x, by y, constant) that give a canvas pixel's source x and source y."""
    sine, cosine = np.sin(degrees * np.pi / 180), np.cos(degrees * np.pi / 180)
    rows, columns = canvas(height, width, degrees)
    x, y = width / 2, height / 2                                  # the middle, which goes to the canvas's middle
    right = (1 - cosine) * x - sine * y + (columns / 2 - x)
    below = sine * x + (1 - cosine) * y + (rows / 2 - y)
    scale = 1 / (cosine * cosine + sine * sine)                   # 1 but for rounding
    cosine, sine = cosine * scale, sine * scale
    return (cosine, -sine, -cosine * right + sine * below), (sine, cosine, -sine * right - cosine * below)


def _fixed(value: np.ndarray) -> np.ndarray:
    """Return coordinates in 1/1024 pixel."""
    return np.rint(value * 1024).astype(np.int64)


def _packed(picture: np.ndarray) -> np.ndarray:
    """Return the pixels as flat int64, three colours in one number, inside a border of two pixels."""
    inside = picture.astype(np.int64) if picture.ndim == 2 else sum(
        picture[..., channel].astype(np.int64) << LANE * channel for channel in range(3))
    border = BORDER if picture.ndim == 2 else BORDER * (1 + (1 << LANE) + (1 << 2 * LANE))
    return np.pad(inside, 2, constant_values=border).ravel()


def _rounded(total: np.ndarray, dimensions: int) -> np.ndarray:
    """Return sums of weight 1024 as 8-bit levels, colours as their luma."""
    if dimensions == 2:
        return (total + 512) >> 10
    total += 512 * (1 + (1 << LANE) + (1 << 2 * LANE))
    return _luma(*((total >> (10 + LANE * channel)) & 255 for channel in range(3)))
