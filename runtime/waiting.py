"""How the threads of this process wait for each other; imports no torch, since torch's OpenMP reads the settings as it is loaded."""
import os
import time
from pathlib import Path

SETTINGS = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
STAT = Path("/proc/stat")
SPINS = "30000"                           # a tenth of libgomp's default: about 6 % slower alone, 10 times faster beside another job
SAMPLE = 0.1                              # seconds in which the load of the processor is measured


def leave_cores_to_others() -> None:
    """Limit how long OpenMP threads spin while they wait, unless the user has set how they wait.

    By default a waiting thread of libgomp spins for a long time. Beside another job it then uses up the time slices that the
    thread it waits for needs. If half a core or more is in use at the start, threads sleep at once; else they spin briefly.
    Call this before torch is imported; it has no effect afterwards. It changes no number.
    """
    if SETTINGS & os.environ.keys():
        return
    if busy_cores() >= 0.5:
        os.environ["OMP_WAIT_POLICY"] = "passive"
    else:
        os.environ["GOMP_SPINCOUNT"] = SPINS


def busy_cores() -> float:
    """Return how many cores are in use by all processes, measured for a moment; 0 where the system does not tell."""
    try:
        before = _times()
        time.sleep(SAMPLE)
        total, idle = (after - first for after, first in zip(_times(), before))
    except (OSError, ValueError, IndexError):
        return 0.0
    return (1 - idle / total) * (os.cpu_count() or 1) if total > 0 else 0.0


def _times() -> tuple[int, int]:
    """Return the time of all cores since the start of the system, in all and idle, in ticks."""
    values = [int(value) for value in STAT.read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return sum(values), values[3] + values[4]
