"""Files that appear whole or not at all, locks, and files of tensors with a checksum."""
import contextlib
import hashlib
import io
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import torch

from runtime.errors import UserError

try:
    import fcntl
except ImportError:                       # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

LOCKED_BYTE = 2**30                       # the byte that stands for the lock, far behind the text of a lock file
SUM = b"\nunweather sha256 "                # stands before the checksum at the end of our files of tensors


def make_folder(path: Path) -> Path:
    """Create a folder with its parents where it does not exist; return it."""
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Yield a file beside `path` that takes its place when the block ends well, and goes when it does not."""
    part = path.with_name(f".{uuid.uuid4().hex[:12]}.part")
    try:
        yield part
        os.replace(part, path)
        sync_folder(path.parent)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(part)):
            error.filename, error.filename2 = str(path), None
        raise


def sync_folder(place: Path) -> None:
    """Bring a folder's names to the disk, so that a file that has taken its place keeps it when the power fails."""
    with contextlib.suppress(OSError):                    # some file systems cannot
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def locked(path: Path, busy: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file `path` for the length of the block; it falls free by itself when the process ends.

    `busy` is told who holds it, before waiting for its end; it may raise instead.
    """
    make_folder(path.parent)
    with open(path, "a+", encoding="utf-8") as file:
        file.seek(0)
        holder = file.read().strip() or "another process"
        try:
            _lock(file)
        except OSError:
            busy(holder)
            _wait_for(file)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _lock(file: IO) -> None:
    """Lock an open file; OSError when another process holds the lock. The system frees it when the file is closed."""
    if fcntl:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        os.lseek(file.fileno(), LOCKED_BYTE, os.SEEK_SET)         # a locked byte cannot be read: one behind the text
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]


def _wait_for(file: IO) -> None:
    """Lock an open file as soon as no other process holds the lock."""
    if fcntl:
        fcntl.lockf(file, fcntl.LOCK_EX)
        return None
    while True:
        with contextlib.suppress(OSError):
            return _lock(file)
        time.sleep(0.1)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with temporary(path) as part, open(part, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: object) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_tensors(path: Path, content: dict) -> None:
    """Write a dictionary of tensors and plain values with a checksum behind it; the file appears whole or not at all."""
    buffer = io.BytesIO()                 # torch.save itself hides why a disk refused to write
    torch.save(content, buffer)
    data = buffer.getbuffer()
    with temporary(path) as part, open(part, "wb") as file:
        file.write(data)
        file.write(SUM + hashlib.sha256(data).hexdigest().encode())
        file.flush()
        os.fsync(file.fileno())


def read_tensors(path: str | Path) -> dict:
    """Read a file of tensors and plain values, without running anything in it; UserError if it is none or damaged.

    The bytes are read and hashed once; they are freed on return, only the tensors made of them stay in memory.
    """
    if not Path(path).is_file():
        raise UserError(f"there is no file {path}; a file of weights (.pt, .pth) is wanted")
    data = Path(path).read_bytes()
    mark, digest = data[-64 - len(SUM):-64], data[-64:]
    body = memoryview(data)[:-64 - len(SUM)]                       # no copy of a large file
    if mark == SUM and hashlib.sha256(body).hexdigest().encode() != digest:
        raise UserError(f"{path} is damaged: its checksum does not fit")
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:            # torch.load raises almost anything for foreign bytes
        raise UserError(f"{path} is damaged or no file of weights (only tensors and plain values are read)") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no named weights")
    return content


def origin(content: dict) -> str:
    """Return ` (written by unweather 0.3.0)` from what a file of ours holds, '' where it does not say its version."""
    return f" (written by unweather {content['version']})" if isinstance(content.get("version"), str) else ""
