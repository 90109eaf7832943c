"""Rain, snow and haze of many kinds, drawn anew for every crop or image: `NAME@rain`, `NAME@snow`, `NAME@haze`.

All sizes are in pixels, so a crop has the drops, flakes and clouds that the whole photo would have. What data/degrade.py draws by
filtering whole planes is drawn here as soft capsules (a line segment with a soft edge): long ones are streaks, short ones flakes.
"""
import numpy as np

from data import degrade

Found = dict[str, np.ndarray]             # 'input' and, of snow, 'mask'
FLAKES = (                                # small to large: radius in pixels, share of the area, opacity, blobs of which a flake consists
    ((0.7, 1.5), (0.005, 0.060), (0.5, 0.9), 1),
    ((1.5, 3.2), (0.005, 0.050), (0.6, 0.95), 2),
    ((3.2, 8.0), (0.005, 0.050), (0.5, 0.95), 3),
)
MOST = 2_000_000                          # pixels of capsules that are computed at a time
FAINT = 4.6                               # -log of the opacity, relative to that of its centre, at which a soft edge ends


def rain(clean: np.ndarray, strength: float, rng: np.random.Generator, height: np.ndarray | None = None) -> Found:
    """Add streaks to (H, W, 3) uint8: a layer of near ones and one of far ones that are shorter, thinner and fainter, and a veil.

    One half of the draws has streaks that cover the photo behind them, the other half many streaks of very different opacity whose
    light is added to the photo (the model of most synthetic sets, such as Rain100L), without a veil. Drawn: direction, length,
    width, density, opacity, brightness, and the veil of covering rain. The strength scales the density and the veil; `height` is not
    used, as in `snow`.
    """
    added, angle = rng.random() < 0.5, np.clip(rng.normal(0, 15), -40, 40)               # degrees from the vertical
    length, radius = _between(rng, 9, 90 if added else 60), _between(rng, 0.6, 1.6 if added else 1.4)
    share, opacity = (_between(rng, 0.04, 0.4), rng.uniform(0.2, 0.8)) if added else (_between(rng, 0.015, 0.2), rng.uniform(0.35, 0.95))
    depth = np.zeros(clean.shape[:2], np.float32)
    for near in (1.0, 0.5):
        _draw(depth, rng, share * strength * near, (angle, 3.0 if added else 1.5), length * near / 2, max(radius * near, 0.5),
              opacity * near**0.5, 1, faintest=0.02 if added else 0.4)
    alpha, veil, bright = 1 - np.exp(-depth)[..., None], rng.uniform(0, 0.08) * strength, rng.uniform(0.8, 1.1)
    if added:
        return {"input": _levels(np.minimum(_scaled(clean) + alpha * np.float32(bright), 1))}
    return {"input": _levels(degrade.behind_streaks(_scaled(clean), alpha, np.float32(veil), np.float32(bright)))}


def snow(clean: np.ndarray, strength: float, rng: np.random.Generator, height: np.ndarray | None = None) -> Found:
    """Add flakes to (H, W, 3) uint8: small ones, or also medium ones, or also large ones, and a veil; 'mask' has the flakes on black.

    Drawn: the sizes, the density and opacity of each size, direction, motion blur, tone, veil. The strength scales the density and
    the veil.
    """
    angle, tone = rng.uniform(-40, 40), rng.uniform(0.9, 1.0) + np.array([-0.02, 0.0, 0.02]) * rng.uniform()
    depth = np.zeros(clean.shape[:2], np.float32)
    for radius, share, opacity, blobs in FLAKES[:rng.integers(1, 4)]:
        radius = _between(rng, *radius)
        _draw(depth, rng, _between(rng, *share) * strength, (angle, 8), radius * rng.uniform(0, 1.5), radius, rng.uniform(*opacity), 2,
              blobs)
    clear = np.exp(-depth)[..., None]
    mask, veil = np.minimum(tone, 1).astype(np.float32) * (1 - clear), np.float32(rng.uniform(0, 0.06) * strength)
    return {"input": _levels(degrade.behind_flakes(_scaled(clean), mask, clear, veil)), "mask": _levels(mask)}


def haze(clean: np.ndarray, strength: float, rng: np.random.Generator, height: np.ndarray | None = None) -> Found:
    """Add haze to (H, W, 3) uint8: in one half of the draws that of landscapes, in the other one that of rooms and near places.

    In landscapes the optical depth increases with `height`. In rooms it follows areas of about 100 pixels and the edges of the photo,
    and the air light is closer to white. Drawn: optical depth of the nearest and the farthest place, how it increases between them,
    clouds, air light. The strength scales the optical depth.
    height: (H, W, 1), 1 for pixels at the top of the photo and 0 at its bottom; None for a whole photo.
    """
    clouds, far = _clouds(clean.shape[:2], _between(rng, 60, 150), rng)[..., None], rng.random() < 0.5
    if far:
        height = heights(*clean.shape[:2]) if height is None else height
        near, rise, power = rng.uniform(0, 0.6), rng.uniform(0, 1.4), rng.uniform(0.7, 1.6)
        depth = near + rise * height.astype(np.float32) ** power + np.float32(0.12 * (near + rise)) * clouds
    else:
        near, rise, edges = rng.uniform(0.2, 0.9), rng.uniform(0, 1.2), np.float32(rng.uniform(-8, 8))
        light = degrade.smoothed(_scaled(clean).mean(2), _between(rng, 1, 6))[..., None]
        depth = near + np.float32(rise) / (1 + np.exp(-clouds - edges * (light - light.mean())))
    air = (rng.uniform(*(0.65, 0.97) if far else (0.75, 1.0)) + rng.uniform(-0.03, 0.03, 3)).astype(np.float32)
    return {"input": _levels(degrade.scattered(_scaled(clean), np.exp(-strength * np.maximum(depth, 0)), air))}


KINDS = {"rain": rain, "snow": snow, "haze": haze}


def heights(height: int, width: int) -> np.ndarray:
    """Return a read-only (H, W, 1) float map of the height in a photo, from 1 in its first row to 0 in its last one; it takes no memory."""
    return np.broadcast_to(np.linspace(1, 0, height)[:, None, None], (height, width, 1))


def _draw(depth: np.ndarray, rng: np.random.Generator, share: float, angle: tuple[float, float], half: float, radius: float,
          opacity: float, power: int, blobs: int = 1, faintest: float = 0.4) -> None:
    """Add capsules at random places to an (H, W) map of optical depth; they would cover about `share` of the area without overlap.

    angle: mean and deviation in degrees from the vertical; half: half the length of the segment; radius: where the opacity has fallen
    by a factor of e; power: 1 for a Gaussian edge, more for a harder one; blobs: that many capsules close to each place; faintest: the
    smallest opacity as a share of the largest.
    """
    margin = np.array([half + 3 * radius, half * np.sin(np.radians(abs(angle[0]) + 5)) + 3 * radius])     # for those that reach in
    area = np.array(depth.shape) + 2 * margin
    count = blobs * rng.poisson(share * area.prod() / (2 * radius * (2 * half + 1.6 * radius)))
    at = np.repeat(rng.random((count // blobs, 2)) * area - margin, blobs, axis=0) + (blobs > 1) * rng.normal(0, 0.45 * radius, (count, 2))
    vary = rng.uniform((0.6, 0.75, faintest), (1.4, 1.25, 1.0), (count, 3)) * (half, radius / blobs**0.3, opacity)
    drops = np.column_stack([at, np.radians(rng.normal(*angle, count)), vary]).astype(np.float32)
    size = (2 * half + 6 * radius) * 6 * radius + 1
    for start in range(0, count, step := int(MOST / size) + 1):
        _add(depth, drops[start:start + step], power)


def _add(depth: np.ndarray, drops: np.ndarray, power: int) -> None:
    """Add capsules (n, 6) to a map of optical depth: row and column of the centre, angle, half length, radius, opacity.

    Each row that a capsule crosses is computed in a band of columns around its axis, which is closer to vertical than to horizontal.
    """
    row, column, angle, half, radius, opacity = drops.T[:, :, None, None]
    cosine, sine = np.cos(angle), np.sin(angle)
    reach = FAINT ** (0.5 / power) * radius
    down, across = int((half * cosine + reach).max(initial=0)) + 1, int((reach / cosine).max(initial=0)) + 1
    rows = np.rint(row) + np.arange(-down, down + 1, dtype=np.float32)[:, None]
    below = rows - row
    columns = np.rint(column + below * (sine / cosine)) + np.arange(-across, across + 1, dtype=np.float32)
    right = columns - column
    beyond = np.maximum(np.abs(below * cosine + right * sine) - half, 0)
    distance = ((right * cosine - below * sine) ** 2 + beyond**2) / radius**2
    inside = (rows >= 0) & (rows < depth.shape[0]) & (columns >= 0) & (columns < depth.shape[1]) & (distance < FAINT ** (1 / power))
    index = (rows * depth.shape[1] + columns)[inside].astype(np.int64)
    opacity = np.broadcast_to(opacity, inside.shape)[inside] * np.exp(-distance[inside] ** power)
    depth += np.bincount(index, -np.log1p(-opacity), depth.size).reshape(depth.shape).astype(np.float32)


def _clouds(shape: tuple[int, int], cell: float, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth random (H, W) float32 map around 0 with a deviation of 1: normal values in a grid of `cell` pixels, blurred."""
    bases = [np.exp(-(np.arange(side)[:, None] / cell + rng.uniform(1, 2) - np.arange(int(side / cell) + 5)) ** 2) for side in shape]
    return (bases[0] @ rng.standard_normal((bases[0].shape[1], bases[1].shape[1])) @ bases[1].T / 1.25).astype(np.float32)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform between those of two bounds."""
    return low * (high / low) ** rng.random()


def _scaled(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / 255


def _levels(image: np.ndarray) -> np.ndarray:
    return np.rint(image * 255).astype(np.uint8)
