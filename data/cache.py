"""Image cache: every image decoded once into a file that can be memory-mapped (`--ext sep`).

One .npy file per image. The file name contains the size and the times of the source file. After a change of the source
the name no longer matches, so the image is decoded again and the old cache file is deleted. Files are written atomically.
"""
import errno
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data import headers, image
from runtime.files import locked, temporary

START = 128                               # bytes of a cache file before the pixels, as np.save writes them
HEADER = re.compile(rb"\x93NUMPY\x01\x00v\x00\{'descr': '\|u1', 'fortran_order': False, 'shape': \((\d+), (\d+), 3\), \} *\n")
AT_ONCE = 1000                            # images that wait for a thread
Places = dict[str, str]                   # the cache file of each image


class Cached:
    """Reads images by their paths: from the cache files of `places`, or decoding an image that has none there.

    It holds about 50 bytes for each image in arrays, whose memory worker processes share; of a dictionary each worker would
    come to own a copy, since the use of an object writes to it (docs/scaling.md).
    """

    def __init__(self, folder: Path, root: Path, places: Places):
        self.folder, self.start = str(folder), len(below(root))
        keys = np.array([_key(source) for source in places], np.uint64)
        order = np.argsort(keys)
        self.keys = keys[order]
        # the stamp of the source, which is in the name of the cache file
        self.stamps = np.array([place.removesuffix(".npy").rpartition(".")[2].encode() for place in places.values()], "S")[order]

    def __call__(self, path: Path | str) -> np.ndarray:
        """Return an image, (H, W, 3) uint8; UserError if it is in no cache file and cannot be decoded."""
        place = _place_of(self, str(path))
        return read(place, path) if place else image.read(path)


@functools.lru_cache(maxsize=8192)
def _place_of(cached: Cached, path: str) -> str:
    """Return the path of a cache file, '' if the image has none; the file is missing if two images have one key."""
    key = _key(path)
    row = int(cached.keys.searchsorted(key))
    if row == len(cached.keys) or cached.keys[row] != key:
        return ""
    return f"{cached.folder}{os.sep}{path[cached.start:]}.{cached.stamps[row].decode()}.npy"


def _key(path: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "big"))


def below(root: Path) -> str:
    """Return how the path of a file in `root` begins: 'dataset/'."""
    return str(root / "x")[:-1]


def fill(folder: Path, root: Path, sources: Iterable[str | Path], busy: Callable[[str], None] = print) -> Places:
    """Decode the images under `root` that are not in the cache `folder` and return {source: cache file}, as text.

    If another process is filling the cache, call `busy` with a description of that process and wait for it.
    Raises UserError if an image is damaged, OSError if the cache cannot be written.
    """
    start = len(below(root))
    places = {source: f"{folder}{os.sep}{source[start:]}.{headers.stamp(source)}.npy" for source in map(str, sources)}
    if not all(_whole(path, source) for source, path in places.items()):
        with locked(folder / "lock", busy):
            _fill(places)
    return places


def _fill(places: Places) -> None:
    missing = [source for source, path in places.items() if not _whole(path, source)]
    if missing:
        folders = {os.path.dirname(places[source]) for source in missing}
        for each in folders:
            os.makedirs(each, exist_ok=True)
        old = _entries(folders)
        with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(desc="decode", total=len(missing), unit="image", disable=None,
                                                              leave=False) as bar:
            try:
                for start in range(0, len(missing), AT_ONCE):
                    for _ in pool.map(lambda source: _decode(source, places[source], old), missing[start:start + AT_ONCE]):
                        bar.update()
            except BaseException as error:
                pool.shutdown(cancel_futures=True)
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):      # the training needs the last space
                    for source in missing:
                        Path(places[source]).unlink(missing_ok=True)
                raise


def read(path: str, source: str | Path) -> np.ndarray:
    """Return a cached image, (H, W, 3) uint8, as a read-only memory map; only the pixels that are used are loaded.

    The size of the file is checked each time, because a map of a file that has been cut short ends the process with SIGBUS.
    (Reading each crop by a call instead takes 13 to 37 % longer a patch.) If the cache file is gone or cut short, `source`,
    the image that it was made from, is decoded.
    """
    try:
        pixels, length = _opened(path)
        if os.stat(path).st_size == length:
            return pixels
    except (OSError, ValueError, RuntimeError):
        pass
    return image.read(source)


@functools.lru_cache(maxsize=8192)        # Linux allows about 65,000 memory maps per process
def _opened(path: str) -> tuple[np.ndarray, int]:
    """Return the map, and the length in bytes of the file that it belongs to.

    PyTorch's map keeps no file open, unlike that of np.load, which moreover takes three times as long.
    """
    whole = torch.from_file(path, size=os.stat(path).st_size, dtype=torch.uint8).numpy()
    shape = HEADER.fullmatch(whole[:START].tobytes())
    if not shape:
        raise ValueError(f"{path} is not a cache file")
    pixels = whole[START:].reshape(int(shape[1]), int(shape[2]), 3)
    pixels.flags.writeable = False
    return pixels, len(whole)


def _entries(folders: set[str]) -> dict[str, list[str]]:
    """Return the cache files of some folders, grouped by their path without the key (size and times)."""
    entries: dict[str, list[str]] = {}
    for folder in folders:
        for name in os.listdir(folder):
            if name.endswith(".npy"):
                path = os.path.join(folder, name)
                entries.setdefault(_unkeyed(path), []).append(path)
    return entries


def _unkeyed(path: str) -> str:
    return path.removesuffix(".npy").rpartition(".")[0]


def _whole(path: str, source: str) -> bool:
    """Return whether a cache file exists and has the length that the size of its image requires; UserError if that is no image."""
    try:
        length = os.stat(path).st_size
    except OSError:
        return False
    height, width = headers.size(source)
    return length == START + 3 * height * width


def _decode(source: str, target: str, old: dict[str, list[str]]) -> None:
    if _whole(target, source):
        return
    decoded = image.read(source)
    with temporary(Path(target)) as part, open(part, "wb") as file:
        np.save(file, decoded, allow_pickle=False)
    for stale in old.get(_unkeyed(target), []):
        if stale != target:
            Path(stale).unlink(missing_ok=True)
