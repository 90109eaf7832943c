"""Available memory and memory use of a network; on a CPU the kernel kills a process that uses too much, without an exception."""
import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path

import torch

from runtime import process

try:
    import resource
except ImportError:                       # Windows
    resource = None  # type: ignore[assignment]

SHARE = 0.8                               # fraction of the available memory that is used
MARGIN = 1.25                             # factor on the measured memory use
SIDES = (256, 512)                        # sides in pixels of the squares on which memory use is measured
WORDS = ("allocate", "not enough memory", "out of memory", "alloc_failed", "32-bit index", "canuse32bitindexmath", "int_max")
PROCESS, GROUPS, MEMORY = Path("/proc/self"), Path("/sys/fs/cgroup"), Path("/proc/meminfo")


def lacks(error: BaseException) -> bool:
    """Return whether the cause of an error is too little memory (or the limited index range of GPU kernels)."""
    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (isinstance(error, RuntimeError) and any(w in text for w in WORDS))


def available(most: float = 0) -> int | None:
    """Return the bytes that this process may still allocate on its device; None if unknown.

    On a CPU this is the lowest of the machine's available memory and the control group's remaining memory, each divided by
    the number of processes of torchrun on this machine, and the limit of `ulimit -v`. most: a limit for the whole process
    in GiB, 0 for none.
    """
    device = process.device()
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return min(free, int(most * 2**30) - torch.cuda.memory_allocated(device)) if most else free
    found = [bytes_ for bytes_ in (_machine(), _group()) if bytes_ is not None]
    found = [bytes_ // max(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1) for bytes_ in found]
    if resource and (used := _status("VmSize")) is not None:
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        found += [limit - used] if limit != resource.RLIM_INFINITY else []
    if most and (used := _status("VmRSS")) is not None:
        found.append(int(most * 2**30) - used)
    return max(min(found), 0) if found else None


def per_pixel(restore: Callable[[torch.Tensor], torch.Tensor], release: Callable[[], object] = lambda: None) -> float | None:
    """Return the bytes per pixel that restoring needs, measured on two small squares; None if it cannot be measured.

    restore: takes (1, 3, S, S) on the CPU, computes on the device, returns the same shape. release: frees the memory that `restore` keeps
    from an earlier call.
    """
    found = []
    for side in SIDES:
        release()
        found.append(peak(functools.partial(_run, restore, side)))
    low, high = found
    if low is None or high is None:
        return None
    few, many = (side * side for side in SIDES)
    return max((high - low) / (many - few), high / many) * MARGIN


def _run(restore: Callable[[torch.Tensor], torch.Tensor], side: int) -> None:
    restore(torch.rand(1, 3, side, side))


def peak(work: Callable[[], object]) -> int | None:
    """Return the peak growth of the device memory in bytes while `work` runs; None if it cannot be measured."""
    device = process.device()
    if device.type == "cuda":
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - held
    with contextlib.suppress(OSError, AttributeError, TypeError):      # only the GNU C library has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)                  # returns freed memory, so that new allocations are visible
    before = _status("VmRSS")
    if before is None:
        return None
    try:
        (PROCESS / "clear_refs").write_text("5")          # resets the peak
    except OSError:
        return _sampled_peak(work, before)
    work()
    return max((_status("VmHWM") or before) - before, 0)


def _sampled_peak(work: Callable[[], object], before: int) -> int:
    """Return the same value, sampled every millisecond, on systems where the peak cannot be reset."""
    highest, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            highest.append(max(highest.pop(), _status("VmRSS") or before))
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return highest[0] - before


def _status(name: str) -> int | None:
    """Return a value of /proc/self/status in bytes, None if it does not exist."""
    return _line(PROCESS / "status", name)


def _machine() -> int | None:
    return _line(MEMORY, "MemAvailable")


def _line(path: Path, name: str) -> int | None:
    """Return the value of the line `name: N kB` of a /proc file in bytes, None if it does not exist."""
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def _group() -> int | None:
    """Return the least memory that a control group of this process leaves; cached files that the kernel can drop count as free."""
    rooms = []
    with contextlib.suppress(OSError):
        for line in (PROCESS / "cgroup").read_text().splitlines():
            _, kinds, place = line.split(":", 2)
            if kinds not in ("", "memory") and "memory" not in kinds.split(","):
                continue
            root = GROUPS / "memory" if kinds else GROUPS
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if kinds else ("memory.max", "memory.current")
            here = root / place.lstrip("/")
            rooms += [_room(folder, *names) for folder in (here, *here.parents) if folder.is_relative_to(root)]
    return min((room for room in rooms if room is not None), default=None)


def _room(folder: Path, limit: str, usage: str) -> int | None:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        most = int((folder / limit).read_text())          # `max` means no limit and raises ValueError here
        lines = (folder / "memory.stat").read_text().splitlines()
        files = next(int(line.split()[1]) for line in lines if line.split()[0] in ("inactive_file", "total_inactive_file"))
        return most - int((folder / usage).read_text()) + files
    return None
