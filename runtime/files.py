"""Names in natural order, atomic writing of files, locks, and files of tensors with a checksum."""
import contextlib
import errno
import hashlib
import io
import json
import os
import re
import socket
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import torch
from torch import Tensor, nn

from runtime import safetensors
from runtime.errors import UserError, short

try:
    import fcntl
except ImportError:                       # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

BUSY = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}        # errors that say that another process holds a lock
LOCKED_BYTE = 2**30                       # position of the byte that is locked on Windows, far behind the text of the lock file
UNWRITABLE = (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG)      # why a cache may be impossible
DIGITS = 64                               # length to which `natural` fills a number
SUM = b"\nunweather sha256 "                # precedes the checksum at the end of a file of tensors
NUMBERS = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
           torch.bool}                    # types of the tensors that are read


def natural(name: str | Path) -> tuple[str, str]:
    """Return the sort key that orders names or paths by the numbers in them: 1, 2, 10, 11, 100.

    Only the digits 0-9 count as a number; all other characters sort by code point. Equal numbers ('01', '1') sort as text.
    """
    text = str(name)
    return re.sub("[0-9]+", lambda number: number[0].zfill(DIGITS), text), text


def cache() -> Path:
    """Return the folder of files that the program makes again if they are missing: UNWEATHER_CACHE, or that of the system's user."""
    system = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return Path(os.environ.get("UNWEATHER_CACHE") or Path(system or Path.home() / ".cache") / "unweather")


def check_output(path: Path, flag: str, folder: bool = False) -> None:
    """Raise UserError unless a file, or with `folder` a folder, can be made at a path that `flag` may name; what is above may lack."""
    above = next((each for each in path.parents if os.path.lexists(each)), Path())
    if not above.is_dir():
        raise UserError(f"{path} cannot be written, because {above} is not a folder; name another place with {flag}")
    if os.path.lexists(path) and path.is_dir() != folder:
        there, needed = ("file", "folder") if folder else ("folder", "file")
        raise UserError(f"{path} is a {there}, and a {needed} is needed; name another place with {flag}")


def make_folder(path: Path) -> Path:
    """Create a folder and its parents if they do not exist; return the path."""
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def temporary(path: Path, ending: str = "") -> Iterator[Path]:
    """Yield a temporary path with this ending beside `path`; rename it to `path` when the block ends, delete it when the block raises."""
    part = path.with_name(f".{uuid.uuid4().hex[:12]}.part{ending}")
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
    """Flush a folder's entries to the disk, so that a renamed file keeps its name after a power failure."""
    with contextlib.suppress(OSError):                    # some file systems do not support this
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def locked(path: Path, busy: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock on the file `path` within the block; the system releases the lock when the process ends.

    If another process holds the lock, `busy` is called with a description of that process and may raise; otherwise this
    function waits for the lock.
    """
    make_folder(path.parent)
    with open(path, "a+", encoding="utf-8") as file:
        file.seek(0)
        holder = file.read().strip() or "another process"
        try:
            _lock(file)
        except OSError as error:
            if error.errno in BUSY:       # otherwise the file system has no locks
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
    """Lock an open file; raises OSError if another process holds the lock. Closing the file releases the lock."""
    if fcntl:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        os.lseek(file.fileno(), LOCKED_BYTE, os.SEEK_SET)         # Windows forbids reading a locked byte, so this one is behind the text
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]


def _wait_for(file: IO) -> None:
    """Wait until no other process holds the lock of an open file, and lock it."""
    if fcntl:
        fcntl.lockf(file, fcntl.LOCK_EX)
        return None
    while True:
        with contextlib.suppress(OSError):
            return _lock(file)
        time.sleep(0.1)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; bytes of file names that are not UTF-8 are written as \\udc80 to \\udcff, as in JSON."""
    with temporary(path) as part, open(part, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict:
    """Return the JSON object in a file that a command writes again; raises UserError for a damaged one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}; delete it, and the command writes it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} does not contain a JSON object; delete it, and the command writes it again")
    return value


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Write a binary file, whose parts follow one another, to the disk; not atomically: see `temporary`."""
    with open(path, "wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def write_tensors(path: Path, content: dict) -> None:
    """Write a dictionary of tensors and plain values, followed by a checksum, atomically."""
    buffer = io.BytesIO()                 # torch.save to a file would hide the cause of a write error
    torch.save(content, buffer)
    data = buffer.getbuffer()
    with temporary(path) as part:
        write_bytes(part, data, SUM + hashlib.sha256(data).hexdigest().encode())


def read_tensors(path: str | Path) -> dict:
    """Read a file of ordinary tensors and plain values, without executing code in it; raises UserError for a damaged or other file.

    The bytes are read and hashed once and freed on return; only the tensors stay in memory, which are never larger than the file.
    """
    if not Path(path).is_file():
        raise UserError(f"the file {path} does not exist; a file of weights (.pt, .pth, .safetensors) is required")
    data = Path(path).read_bytes()
    mark, digest = data[-64 - len(SUM):-64], data[-64:]
    body = memoryview(data)[:-64 - len(SUM)]                       # a view: does not copy a large file
    if mark == SUM and hashlib.sha256(body).hexdigest().encode() != digest:
        raise UserError(f"{path} is damaged: its checksum is wrong")
    try:
        if data.startswith(b"PK"):        # all but the oldest versions of torch.save write a zip archive
            stated = zipfile.ZipFile(io.BytesIO(data)).infolist()
            if any(entry.compress_type for entry in stated) or sum(entry.file_size for entry in stated) > len(data):
                raise UserError(f"{path} is a compressed archive, not a file of weights, whose parts are stored as they are")
        if safetensors.is_safetensors(data):
            content = safetensors.decoded(path, data)
        else:
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (MemoryError, UserError):
        raise
    except Exception as error:            # both readers raise many types of errors for other files
        raise UserError(f"{path} is damaged or is not a file of weights (only tensors and plain values are read)") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} does not contain named weights")
    _check_tensors(path, content)
    return content


def _check_tensors(path: str | Path, content: dict) -> None:
    """Raise UserError if a file contains another tensor than a dense one of numbers that are all stored in the file."""
    waiting: list[tuple[object, object]] = [("", content)]
    seen = set()                          # a file may contain one list many times, and a list that contains itself
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor) and not _is_ordinary(value):
            raise UserError(f"{path}: the tensor '{short(name)}' is of a kind that is not read ({_kind(value)}); only dense tensors of "
                            "ordinary numbers are, each with a value of its own for every element")
        if isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.items() if isinstance(value, dict) else enumerate(value)


def _is_ordinary(value: Tensor) -> bool:
    return (type(value) in (Tensor, nn.Parameter) and value.device.type == "cpu" and value.layout == torch.strided
            and value.dtype in NUMBERS and not value.is_nested and value.numel() * value.element_size() <= value.untyped_storage().nbytes())


def _kind(value: Tensor) -> str:
    return f"{type(value).__name__}, {value.dtype}, {value.layout}, {value.device.type}".replace("torch.", "")


def origin(content: dict) -> str:
    """Return ` (written by unweather 0.3.0)` for the content of a file of this program, '' if it states no version."""
    return f" (written by unweather {short(content['version'])})" if isinstance(content.get("version"), str) else ""
