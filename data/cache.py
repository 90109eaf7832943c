"""Image cache: every image decoded once into a file that can be memory-mapped (`--ext sep`).

One .npy file per image. The file name contains the size and the times of the source file. After a change of the source
the name no longer matches, so the image is decoded again and the old cache file is deleted. Files are written atomically.
"""
import errno
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data import image
from runtime.files import locked, temporary


def place(folder: Path, root: Path, source: Path) -> Path:
    """Return the path of the cache file of `source`, an image under `root`, in the cache folder."""
    stat = source.stat()
    key = f"{stat.st_size:x}-{stat.st_mtime_ns:x}-{stat.st_ctime_ns:x}"
    return folder / source.relative_to(root).parent / f"{source.name}.{key}.npy"


def fill(folder: Path, root: Path, sources: list[Path], busy: Callable[[str], None] = print) -> dict[Path, Path]:
    """Decode the images that are not in the cache and return {source: cache file}.

    If another process is filling the cache, call `busy` with a description of that process and wait for it.
    Raises UserError if an image is damaged, OSError if the cache cannot be written.
    """
    places = {source: place(folder, root, source) for source in sources}
    if not all(_whole(path) for path in places.values()):
        with locked(folder / "lock", busy):
            _fill(places)
    return places


def _fill(places: dict[Path, Path]) -> None:
    missing = [source for source, path in places.items() if not _whole(path)]
    if missing:
        for parent in {places[source].parent for source in missing}:
            parent.mkdir(parents=True, exist_ok=True)
        old = _entries({places[source].parent for source in missing})
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = pool.map(lambda source: _decode(source, places[source], old), missing)
            try:
                for _ in tqdm(jobs, "decode", len(missing), unit="image", disable=None, leave=False):
                    pass
            except BaseException as error:
                pool.shutdown(cancel_futures=True)
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):      # the training needs the last space
                    for source in missing:
                        places[source].unlink(missing_ok=True)
                raise


def read(path: Path, source: Path) -> np.ndarray:
    """Return a cached image, (H, W, 3) uint8, as a read-only memory map; only the pixels that are used are loaded.

    The size of the file is checked each time, because a map of a file that has been cut short ends the process with SIGBUS.
    (Reading each crop by a call instead takes 13 to 37 % longer a patch.) If the cache file is gone or cut short, `source`,
    the image that it was made from, is decoded.
    """
    name = str(path)
    try:
        pixels, length = _opened(name)
        if os.stat(name).st_size == length:
            return pixels
    except (OSError, ValueError, EOFError):
        pass
    return image.read(source)


@functools.lru_cache(maxsize=8192)        # Linux allows about 65,000 memory maps per process
def _opened(path: str) -> tuple[np.ndarray, int]:
    """Return the map, and the length in bytes of the file that it belongs to."""
    pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.asarray(pixels), pixels.offset + pixels.nbytes         # an array instead of np.memmap, whose slices are slow


def _entries(folders: set[Path]) -> dict[Path, list[Path]]:
    """Return the cache files of some folders, grouped by their path without the key (size and times)."""
    entries: dict[Path, list[Path]] = {}
    for folder in folders:
        for path in folder.glob("*.npy"):
            entries.setdefault(_unkeyed(path), []).append(path)
    return entries


def _unkeyed(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".npy").rpartition(".")[0])


def _whole(path: Path) -> bool:
    """Return whether a cache file exists and has the length that its header states."""
    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return True


def _decode(source: Path, target: Path, old: dict[Path, list[Path]]) -> None:
    if _whole(target):
        return
    decoded = image.read(source)
    with temporary(target) as part, open(part, "wb") as file:
        np.save(file, decoded, allow_pickle=False)
    for stale in old.get(_unkeyed(target), []):
        if stale != target:
            stale.unlink(missing_ok=True)
