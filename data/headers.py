"""The sizes of image files: their headers are read once and kept in an index for later starts.

The user's cache (runtime/files.py) has one index for each folder. A line of it holds only while the file has the same length and times, so
an image that was changed is read again. An index that is damaged or that of another folder is ignored. A false one can only state false
sizes, which are found when the images are read.
"""
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data import image
from runtime import files, process
from runtime.errors import UserError
from runtime.progress import Progress

MANY = 1000                               # fewer headers are read again at each start: that takes less than half a second
CHUNK = 100                               # files that a thread reads at a time
LINE = re.compile(r"(\d{1,9}) (\d{1,9})( 16-bit)?", re.ASCII)
SUM = 32                                  # bytes of the checksum at the start of an index
_known: dict[str, str] = {}               # by path: the stamp and the LINE of the files that `scan` has read


def stamp(path: str | Path) -> str:
    """Return the length and the times of a file as text, which a change of the file changes; OSError if there is no such file."""
    stat = os.stat(path)
    return f"{stat.st_size:x}-{stat.st_mtime_ns:x}-{stat.st_ctime_ns:x}"


def size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) as `image.size`, without reading the file if `scan` has read it; UserError if it is not an image."""
    line = _line(str(path))
    if not line:
        return image.size(path)
    if line[3]:
        image.tell_of_depth(path)
    return int(line[1]), int(line[2])


def scan(paths: Iterable[str]) -> None:
    """Read the headers of files, or those of many files from the index, for `size`; a file that cannot be read is left to `size`."""
    missing = [path for path in paths if not _line(path)]
    if len(missing) >= MANY:
        for folder in {os.path.dirname(path) for path in missing}:
            _known.update(_loaded(folder))
        missing = [path for path in missing if not _line(path)]
    if len(missing) < MANY:
        _known.update(_read(missing))
        return
    with Progress("read headers", len(missing), "images") as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for found in pool.map(_read, (missing[start:start + CHUNK] for start in range(0, len(missing), CHUNK))):
                _known.update(found)
                progress.begin(CHUNK)
                progress.end(CHUNK)
        finally:
            pool.shutdown(cancel_futures=True)
    _store({os.path.dirname(path) for path in missing})


def forget() -> None:
    """Free the memory: about 300 bytes for each file."""
    _known.clear()


def _line(path: str) -> re.Match | None:
    """Return what is known of a file that has not changed since: its height, its width and whether it has 16 bits."""
    stated, _, line = _known.get(path, "").partition(" ")
    if line:                              # without one the file is not even looked at
        with contextlib.suppress(OSError):
            if stamp(path) == stated:
                return LINE.fullmatch(line)
    return None


def _read(paths: list[str]) -> dict[str, str]:
    found = {}
    for path in paths:
        with contextlib.suppress(OSError, UserError):
            before = stamp(path)
            height, width, deep = image.header(path)
            found[path] = f"{before} {height} {width}{' 16-bit' * deep}"
    return found


def _place(folder: str) -> Path:
    return files.cache() / "headers" / f"{hashlib.sha256(os.fsencode(os.path.abspath(folder))).hexdigest()[:32]}.json"


def _loaded(folder: str) -> dict[str, str]:
    """Return what the index of a folder states by path, {} if there is none or it is damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = _place(folder).read_bytes()
        if hashlib.sha256(whole[SUM:]).digest() == whole[:SUM]:
            stated = json.loads(whole[SUM:])
            if stated["folder"] == os.path.abspath(folder):
                return {os.path.join(folder, name): line for name, line in stated["images"].items()
                        if isinstance(line, str) and name == os.path.basename(name)}
    return {}


def _store(folders: set[str]) -> None:
    """Write the indexes of folders, without files that they no longer hold; a cache that cannot be written is logged."""
    lines: dict[str, dict[str, str]] = {folder: {} for folder in folders}
    for path, line in _known.items():
        folder, name = os.path.split(path)
        if folder in folders:
            lines[folder][name] = line
    try:
        for folder, images in lines.items():
            place = _place(folder)
            files.make_folder(place.parent)
            body = json.dumps({"folder": os.path.abspath(folder), "images": images}).encode()
            with files.temporary(place) as part:
                part.write_bytes(hashlib.sha256(body).digest() + body)
    except OSError as error:
        process.log().say(f"the sizes of the images cannot be kept in {files.cache()} ({error.strerror}) and are read again at each start",
                          keep=False)
