"""The results that the tests of a set wrote: restored-<set>.jsonl has a line for each, added just before the result gets its name.

So a kill at any moment leaves no result without its line, and a file that somebody else put there is never taken for a result.
"""
import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from report.curves import read_lines
from runtime import files

ROUNDING = 2.0                            # seconds to which some file systems (FAT) round the time of a file
LOCK = threading.Lock()                   # several threads write results


class Written(NamedTuple):
    """A result: the name of its image, the name of the image's file with its ending, the result's bytes and time of change."""
    picture: str
    file: str
    size: int
    time: float

    @classmethod
    def of(cls, path: Path, picture: str, file: str) -> "Written":
        """Return the result that a file is now."""
        state = path.stat()
        return cls(picture, file, state.st_size, state.st_mtime)

    def is_at(self, path: Path) -> bool:
        """Return whether a path is still the result that was written, not another file or a changed one."""
        try:
            state = os.lstat(path)
        except OSError:
            return False
        return state.st_size == self.size and abs(state.st_mtime - self.time) <= ROUNDING


def known(folder: Path, name: str) -> dict[str, Written] | None:
    """Return the results of a set by the names of their images; None if no test wrote the file, as in version 0.2.0 and older."""
    path = _file(folder, name)
    return {each.picture: each for each in read_lines(path, _record)} if path.is_file() else None


def keep(folder: Path, name: str, results: list[Written]) -> None:
    """Replace the lines of a set."""
    files.write_text(_file(folder, name), "".join(map(_line, results)))


@contextlib.contextmanager
def result(folder: Path, name: str, path: Path, picture: str, file: str = "") -> Iterator[Path]:
    """Yield the path of a temporary file; when the block has written it, record it as the result of an image and rename it to `path`."""
    files.make_folder(path.parent)
    with files.temporary(path, path.suffix) as part:
        yield part
        line = _line(Written.of(part, picture, file)).encode()
        with LOCK, open(_file(folder, name), "ab", buffering=0) as lines:         # one write, since several processes may add lines
            lines.write(line)
            os.fsync(lines.fileno())


def _file(folder: Path, name: str) -> Path:
    return folder / f"restored-{name}.jsonl"


def _line(result: Written) -> str:
    return json.dumps(result._asdict()) + "\n"


def _record(line: str) -> list[Written]:
    """Return [result] for a line, [] for a damaged one."""
    try:
        found = Written(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return []
    fits = isinstance(found.picture, str) and isinstance(found.file, str) and type(found.size) is int and isinstance(found.time, float)
    return [found] if fits else []
