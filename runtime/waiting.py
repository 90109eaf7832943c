"""How many threads compute, how they wait, and memory in large pages; imports no torch, which reads these settings as it is loaded."""
import os
import time
from pathlib import Path

WAITS = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
BUSY = "UNWEATHER_BUSY_CORES"             # set beside OMP_NUM_THREADS if this module chose the number, to the cores that were in use
STAT = Path("/proc/stat")
PAGES = "THP_MEM_ALLOC_ENABLE"            # PyTorch then asks Linux for pages of 2 MiB for large tensors; many small ones cost time
SPINS = "30000"                           # a tenth of libgomp's default: about 6 % slower alone, 10 times faster beside another job
SAMPLES = (0.1, 0.9)                      # seconds in which the load is measured; again and longer if the first one is high


def before_torch() -> None:
    """Choose the threads and the size of the pages of memory for a program. Call this before torch is imported."""
    leave_cores_to_others()
    os.environ.setdefault(PAGES, "1")


def leave_cores_to_others() -> None:
    """Choose the number of OpenMP threads by the cores that are free, and how they wait, unless the user has set it.

    Threads that are more than the free cores wait for each other most of the time: two threads beside two other busy programs
    on two cores are slower than one. By default a waiting thread of libgomp also spins for a long time, and uses up the time
    slices that the thread it waits for needs.
    """
    cores = own_cores()
    used = min(busy_cores(), cores)
    free = max(1, cores - int(used + 0.25))
    if free < cores and "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(free)
        os.environ[BUSY] = f"{used:.1f}"
    if not WAITS & os.environ.keys():
        name, value = ("OMP_WAIT_POLICY", "passive") if used >= 0.5 else ("GOMP_SPINCOUNT", SPINS)
        os.environ[name] = value


def own_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy_cores() -> float:
    """Return how many of this process's cores all programs use, as measured for a moment; 0 where the system does not tell.

    The cores of the machine beyond those that this process may use are counted as free first.
    """
    used = float("inf")
    try:
        for seconds in SAMPLES:
            before = _times()
            time.sleep(seconds)
            total, idle = (after - first for after, first in zip(_times(), before))
            cores = os.cpu_count() or 1
            busy = (1 - idle / total) * cores if total > 0 else 0.0
            used = min(used, max(0.0, busy - (cores - own_cores())))
            if used < 0.5:
                break
    except (OSError, ValueError, IndexError):
        return 0.0
    return used


def _times() -> tuple[int, int]:
    """Return the time of all cores since the start of the system, in all and idle, in ticks."""
    values = [int(value) for value in STAT.read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return sum(values), values[3] + values[4]
