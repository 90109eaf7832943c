"""Find training images that show a scene of a test set, also if they are cropped, mirrored, rotated by 90 degrees, scaled or degraded.

A fingerprint describes each blob of an image by a patch of samples around it. The patch is flipped and rotated into one of
eight poses (quarter turns, mirrors) that depends only on its samples, so a copy of the image has the same descriptions at
other positions. A test image is a candidate if several descriptions agree on one motion (pose and shift). It is a leak if the
two images also correlate where they overlap after this motion. This finds scales from SCALES[0] to SCALES[-1]; for scales from
about 0.5 to 2, the larger of the two images is also compared after it has been reduced by the ZOOMS.
All distances are in pixels of the images at half their size (times the zoom); grey levels are 0-255.
"""
import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy  # imports its parts when they are used
from PIL import Image
from tqdm import tqdm

from contract import Item
from data import image, source
from data.source import Source, path_of
from runtime import files

VERSION = 2                               # of the fingerprints; increase it when they change
ZOOMS = (1.0, 0.7, 0.5)                   # sizes at which an image is described
SIGMAS = 1.3 * 2 ** (np.arange(6) / 3)    # blob sizes; blobs of the middle sizes are detected
MIN_CONTRAST = 0.5                        # grey levels by which a blob must differ from its surroundings
AREA, MAX_BLOBS = 150, 1500               # one blob is kept per AREA pixels of the image, strongest first, at most MAX_BLOBS
SIDE, STEP = 8, 1.5                       # samples per side of a patch, and their distance in blob sizes
POSE_MARGIN = 0.15                        # a patch whose pose is decided by less than this part is kept in both poses
MATCH = 0.85                              # correlation above which two descriptions match
VOTES, BIN, FIT = 5, 16, 3                # VOTES matches must agree on a motion within BIN pixels, and finally fit it within FIT pixels
MIN_FITTING = 0.25                        # part of the agreeing matches that must fit; repeating patterns agree, but fit badly
MIN_SPREAD = 5                            # smallest spread of the places (root of the smaller variance); excludes places on one line
SCALES = 1.05 ** np.arange(-4, 5)         # tested scales of a scene in one image relative to the other
WINDOW = 256                              # the overlap is compared up to this distance from the centre of the fitting places
OVERLAP = 0.3                             # part of the smaller image that must lie in the other image
DETAIL = 300                              # pixels; an overlap with less detail gets a low score
LEAK_SCORE = 0.5                          # score from which two images are said to show one scene
POSES = np.array([[[1 - (pose & 1) * 2, 0], [0, 1 - (pose & 2)]] for pose in range(4)])
POSES = np.concatenate([POSES, POSES[:, ::-1]]).astype(np.float32)    # (8, 2, 2): maps (row, column) to the pose
BLOB = np.dtype([("at", "f4", 2), ("bright", "?"), ("pose", "u1"), ("zoom", "u1"), ("patch", "i1", SIDE**2)])


class Leak(NamedTuple):
    """A training image and the test image whose scene it shows; `score` (0.5-1) is the correlation of their overlap."""
    train: Item
    test: Item
    score: float


def find(train: list[Item], test: list[Item], folder: Path | None = None,
         read: Callable[[Path], np.ndarray] = image.read) -> list[Leak]:
    """Return every pair of a training and a test image that show one scene, in the order of `train`.

    The clean 'image' of an item is compared, or its 'input' if it has none; `read` returns a file as (H, W, 3) uint8.
    Fingerprints of files are cached in `folder` if it is given. Raises UserError for a damaged image, OSError if `folder`
    cannot be written.
    """
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    prints = list(_fingerprints([_source(item) for item in test], folder, read))
    known = np.concatenate([*prints, np.empty(0, BLOB)])
    owner = np.repeat(np.arange(len(test)), [len(blobs) for blobs in prints]) * len(ZOOMS) + known["zoom"]
    groups = [[(bright, rows, _vectors(known[rows]).T.copy()) for bright in (False, True)
               for rows in [np.flatnonzero(which & (known["bright"] == bright))]] for which in (known["zoom"] >= 0, known["zoom"] == 0)]
    grey = functools.lru_cache(maxsize=256)(lambda number: sizes(half(_source(test[number]), read)))
    leaks = []
    for item, blobs in zip(train, _fingerprints([_source(item) for item in train], folder, read)):
        pictures, found = None, {}
        for zoom in range(len(ZOOMS)):                    # a reduced training image is compared with the test images in full size only
            for place, motion, places in _candidates(blobs[blobs["zoom"] == zoom], known, owner, groups[zoom > 0]):
                number, other = divmod(place, len(ZOOMS))
                pictures = sizes(half(_source(item), read)) if pictures is None else pictures
                score = 0.0 if number in found else _score(pictures[zoom], grey(number)[other], motion, places)
                if score >= LEAK_SCORE:
                    found[number] = score
        leaks += [Leak(item, test[number], score) for number, score in found.items()]
    return leaks


def sizes(grey: np.ndarray) -> list[np.ndarray]:
    """Return the grey levels (H, W) float32 of an image at each of the ZOOMS."""
    height, width = grey.shape
    whole = Image.fromarray(grey)
    return [grey, *(np.asarray(whole.resize((max(round(width * zoom), 1), max(round(height * zoom), 1)), Image.Resampling.BICUBIC))
                    for zoom in ZOOMS[1:])] if grey.size else [grey] * len(ZOOMS)


def half(origin: Source, read: Callable[[Path], np.ndarray] = image.read) -> np.ndarray:
    """Return the grey levels of an image at half its size, (H // 2, W // 2) float32."""
    picture = source.read(origin, read)
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    grey = picture[:2 * height, :2 * width].astype(np.float32) @ np.float32([0.299, 0.587, 0.114])
    return grey.reshape(height, 2, width, 2).mean((1, 3))


def fingerprint(grey: np.ndarray) -> np.ndarray:
    """Return the blobs of (H, W) grey levels at all ZOOMS, (n,) BLOB."""
    found = [_blobs(each) for each in sizes(grey)]
    for zoom, blobs in enumerate(found):
        blobs["zoom"] = zoom
    return np.concatenate(found)


def _blobs(grey: np.ndarray) -> np.ndarray:
    """Return the blobs of (H, W) grey levels, (n,) BLOB; a patch is stored as its whitened cosine transform of length 127."""
    if min(grey.shape) < 2 * SIDE:
        return np.empty(0, BLOB)
    blurred = np.stack([scipy.ndimage.gaussian_filter(grey, sigma) for sigma in SIGMAS])
    layers = blurred[1:] - blurred[:-1]
    sign = (layers == scipy.ndimage.minimum_filter(layers, 3)).astype(np.int8) - (layers == scipy.ndimage.maximum_filter(layers, 3))
    sign[[0, -1]] = sign[:, [0, -1]] = sign[:, :, [0, -1]] = 0          # an extremum needs neighbours on all sides
    sign[np.abs(layers) < MIN_CONTRAST] = 0
    level, row, column = np.nonzero(sign)
    best = np.argsort(-np.abs(layers[level, row, column]), kind="stable")[:min(max(64, grey.size // AREA), MAX_BLOBS)]
    level, row, column = level[best], row[best], column[best]
    reach = SIGMAS[level][:, None] * (np.arange(SIDE) - (SIDE - 1) / 2) * STEP
    rows, columns = np.broadcast_arrays((row[:, None] + reach)[:, :, None], (column[:, None] + reach)[:, None])
    patches = np.zeros((len(best), SIDE, SIDE), np.float32)
    for which in np.unique(level):
        chosen = level == which
        patches[chosen] = scipy.ndimage.map_coordinates(blurred[which], [rows[chosen], columns[chosen]], order=1, mode="mirror")
    index, poses = _poses(patches)
    patches = patches[index]
    for bit, turn in ((1, lambda p: p[:, ::-1]), (2, lambda p: p[:, :, ::-1]), (4, lambda p: p.swapaxes(1, 2))):
        chosen = (poses & bit) > 0
        patches[chosen] = turn(patches[chosen])
    waves = scipy.fft.dctn(patches, axes=(1, 2), norm="ortho")
    waves = (waves * np.hypot(*np.mgrid[:SIDE, :SIDE])).reshape(len(waves), SIDE**2)      # spectra of natural images fall as 1/f
    blobs = np.empty(len(index), BLOB)
    blobs["at"], blobs["bright"], blobs["pose"] = np.stack([row, column], 1)[index], (sign[level, row, column] > 0)[index], poses
    blobs["patch"] = np.rint(127 * waves / np.linalg.norm(waves, axis=1, keepdims=True).clip(1e-6))
    return blobs


def _poses(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (indices of patches, poses). The pose makes a patch brighter downwards and to the right, and more so downwards.

    Bit 1 of a pose mirrors the rows, bit 2 the columns, bit 4 then swaps rows and columns. A patch occurs several times if
    its pose is not clear (POSE_MARGIN).
    """
    ramp = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
    window = np.exp(-(ramp / 3) ** 2)
    down = np.einsum("nij,i,j->n", patches, ramp * window, window)
    right = np.einsum("nij,i,j->n", patches, window, ramp * window)
    pose = (down < 0) * 1 + (right < 0) * 2 + (abs(down) < abs(right)) * 4
    doubt = np.stack([abs(down), abs(right), abs(abs(down) - abs(right))]) < POSE_MARGIN * np.hypot(down, right)
    found = [np.flatnonzero(np.all([doubt[bit] for bit in range(3) if flips >> bit & 1] or [pose >= 0], axis=0)) for flips in range(8)]
    return np.concatenate(found), np.concatenate([pose[index] ^ flips for flips, index in enumerate(found)])


def _source(item: Item) -> Source:
    return item.images["image"] if "image" in item.images else item.images["input"]


def _vectors(blobs: np.ndarray) -> np.ndarray:
    return blobs["patch"].astype(np.float32) / 127


def _fingerprints(sources: list, folder: Path | None, read: Callable) -> Iterator[np.ndarray]:
    """Yield the fingerprints of images in order, computed by several threads or read from the cache."""
    old = {path.name.partition(".")[0]: path for path in (folder.glob("*.npy") if folder else ())}

    def one(origin: Source) -> np.ndarray:
        path = path_of(origin)
        if folder is None or path is None:
            return fingerprint(half(origin, read))
        stat = path.stat()
        stem = hashlib.sha256(f"{path.absolute()} {origin[1:] if isinstance(origin, tuple) else ''}".encode()).hexdigest()[:24]
        place = folder / f"{stem}.{VERSION}-{stat.st_size:x}-{stat.st_mtime_ns:x}-{stat.st_ctime_ns:x}.npy"
        with contextlib.suppress(OSError, ValueError, EOFError):     # the file does not exist or is incomplete
            return np.load(place, allow_pickle=False)
        blobs = fingerprint(half(origin, read))
        try:
            with files.temporary(place) as part, open(part, "wb") as file:
                np.save(file, blobs, allow_pickle=False)
            if stem in old and old[stem] != place:
                old[stem].unlink(missing_ok=True)
        except OSError as error:
            if error.errno not in files.UNWRITABLE:
                raise
        return blobs
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            yield from tqdm(pool.map(one, sources), "fingerprints", len(sources), unit="image", disable=None, leave=False)
        finally:
            pool.shutdown(cancel_futures=True)


def _candidates(blobs: np.ndarray, known: np.ndarray, owner: np.ndarray, groups: list) -> Iterator[tuple]:
    """Yield (owner of test blobs, motion (2, 2), matched places (n, 2, 2)) if enough blobs agree on one motion."""
    pairs = [np.empty((0, 2), int)]
    for bright, rows, vectors in groups:
        for mine in np.array_split(np.flatnonzero(blobs["bright"] == bright), 1 + len(blobs) // 512):
            matches = np.divmod(np.flatnonzero(_vectors(blobs[mine]) @ vectors > MATCH), max(len(rows), 1))
            pairs.append(np.stack([mine[matches[0]], rows[matches[1]]], 1))
    first, second = np.concatenate(pairs).T
    motion = np.swapaxes(POSES[known["pose"][second]], 1, 2) @ POSES[blobs["pose"][first]]      # maps a training patch to a test patch
    places = np.stack([blobs["at"][first], known["at"][second]], 1)
    shift = places[:, 1] - np.einsum("nij,nj->ni", motion, places[:, 0])
    kind = owner[second] * 81 + (motion.reshape(-1, 4) @ np.array([27, 9, 3, 1])).astype(int) + 40
    best: dict[int, tuple] = {}
    for offset in np.mgrid[:2, :2].reshape(2, -1).T * BIN // 2:
        row, column = np.floor((shift + offset) / BIN).astype(int).T + 2**15
        keys, label = np.unique((kind << 32) + (row << 16) + column, return_inverse=True)
        votes = _distinct(places, label)
        for chosen in np.flatnonzero(votes >= VOTES):
            number = int(keys[chosen] >> 32) // 81
            if votes[chosen] > best.get(number, (0,))[0]:
                members = label == chosen
                best[number] = votes[chosen], motion[members][0], places[members]
    for number, (_, turn, agreeing) in best.items():
        yield number, turn, agreeing


def _distinct(places: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return for each label the number of different places among its matches (n, 2, 2), the smaller number of the two images."""
    keys = (label[:, None] << 32) + (places.astype(int) @ np.array([1 << 16, 1]))
    return np.min([np.bincount(np.unique(side) >> 32) for side in keys.T], axis=0)


def _score(picture: np.ndarray, other: np.ndarray, motion: np.ndarray, places: np.ndarray) -> float:
    """Return the correlation of two (H, W) images where they overlap after moving the first by the motion fitted to the places."""
    start, end = places[:, 0] @ motion.T, places[:, 1]
    near = max((np.abs(shift - np.median(shift, axis=0)).max(1) < FIT for scale in SCALES for shift in [end - scale * start]),
               key=np.count_nonzero)
    if _distinct(places[near], np.zeros(near.sum(), int)).sum() < max(VOTES, MIN_FITTING * len(places)):
        return 0.0
    middle, aim = start[near].mean(0), end[near].mean(0)
    a, b = start[near] - middle, end[near] - aim
    if np.linalg.eigvalsh(b.T @ b / len(b))[0] < MIN_SPREAD**2:
        return 0.0
    scale = np.clip((a * b).sum() / max((a * a).sum(), 1e-6), SCALES[0], SCALES[-1])
    window = tuple(slice(max(0, int(at) - WINDOW), min(int(at) + WINDOW, side)) for at, side in zip(aim, other.shape))
    pixels, other = np.stack(np.mgrid[window], -1), other[window]
    back = ((pixels - aim) / scale + middle) @ motion
    moved = scipy.ndimage.map_coordinates(picture, np.moveaxis(back, -1, 0), order=1, cval=np.nan)
    outside = np.isnan(moved)
    inside = ~scipy.ndimage.maximum_filter(outside, 7)
    if inside.sum() < OVERLAP * min(picture.size * scale**2, other.size):
        return 0.0
    x, y = (_levelled(levels)[inside] for levels in (np.where(outside, other.mean(), moved), other))
    return float((x * y).sum() / (np.sqrt((x * x).sum() * (y * y).sum()) + DETAIL))


def _levelled(grey: np.ndarray) -> np.ndarray:
    """Return the details of an (H, W) image, normalised to equal local strength except in flat parts."""
    detail = scipy.ndimage.gaussian_filter(grey, 1.5) - scipy.ndimage.gaussian_filter(grey, 6)
    return detail / np.sqrt(scipy.ndimage.gaussian_filter(detail**2, 12) + 4)
