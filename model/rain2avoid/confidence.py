"""The confidence that a streak of a map of rain is rain and not texture; the published method has no such step.

Rain is a narrow line that is brighter than the pixels on both of its sides, and light without colour: it makes the colours of what
is behind it weaker, not stronger. Edges and texture differ in one of these. What speaks against rain is measured in levels of 255.
"""
import numpy as np
from scipy import ndimage

WINDOW = 9                                # side of the window in which the pixels without rain are averaged, in pixels
SIDE = 3                                  # distance of the two sides of a streak from its pixels, in pixels
ASYMMETRY = 0.1                           # weight of a difference between the two sides, relative to a difference of colours
HALF = 10.0                               # levels at which the confidence is a half


def confident(rgb: np.ndarray, prior: np.ndarray, degrees: int, limit: float) -> np.ndarray:
    """Return the map (H, W) uint8 of the image (H, W, 3) uint8 with 0 in all streaks whose confidence is below `limit`, 0 to 1.

    A streak is a connected part of the map. degrees: the angle by which the image is rotated to make the streaks vertical.
    The confidence is 1 / (1 + (s + m) / HALF); s: what speaks against the streak, m: the mean of s over the map, in levels.
    """
    streaks, count = ndimage.label(prior, np.ones((3, 3)))
    if not (count and limit):
        return prior
    against = _against(rgb, prior, streaks, count, degrees)
    sizes = np.bincount(streaks.ravel())[1:]
    confidence = 1 / (1 + (against + np.average(against, weights=sizes)) / HALF)
    return np.where(np.append(True, confidence >= limit)[streaks], prior, np.uint8(0))


def _against(rgb: np.ndarray, prior: np.ndarray, streaks: np.ndarray, count: int, degrees: int) -> np.ndarray:
    """Return for every streak, (count,) in levels, the strength of its colour and the weighted difference between its two sides."""
    inside = prior > 0
    labels, weights = streaks[inside] - 1, prior[inside].astype(float)
    total = np.bincount(labels, weights, count)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(labels, values * weights, count) / total

    clean = np.float32(1) - inside
    share = np.maximum(ndimage.uniform_filter(clean, WINDOW)[inside], 1e-3)
    behind = np.stack([ndimage.uniform_filter(rgb[..., channel] * clean, WINDOW)[inside] / share for channel in range(3)])
    rain = np.stack([mean(rgb[..., channel][inside] - behind[channel]) for channel in range(3)])
    behind = np.stack([mean(each) for each in behind])
    rain, behind = rain - rain.mean(0), behind - behind.mean(0)                        # the colours without their brightness
    along = (rain * behind).sum(0) / np.maximum((behind**2).sum(0), 1)
    colour = np.abs(rain - np.minimum(along, 0) * behind).mean(0)                      # a weaker colour does not speak against rain
    return colour + ASYMMETRY * np.abs(mean(_sides(rgb, inside, degrees)))


def _sides(rgb: np.ndarray, inside: np.ndarray, degrees: int) -> np.ndarray:
    """Return the difference in brightness of the two pixels at the distance SIDE across the streaks, (N,), of the pixels of the map."""
    rows, columns = np.nonzero(inside)
    down, right = (round(SIDE * float(each(np.radians(degrees)))) for each in (np.sin, np.cos))
    height, width = inside.shape
    one, other = (rgb[np.clip(rows + sign * down, 0, height - 1), np.clip(columns + sign * right, 0, width - 1)].mean(-1)
                  for sign in (1, -1))
    return one - other
