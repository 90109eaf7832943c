"""main.py without what only Linux or POSIX has, as on Windows: for test_platforms.py.

There are no fcntl, resource, /proc, fork and CPU affinity; a folder cannot be opened; SIGTERM and SIGINT are all signals there are.
msvcrt.locking is played by fcntl.lockf, which locks the same byte.
"""
import fcntl
import multiprocessing
import os
import signal
import sys
import types
from pathlib import Path


def locking(file: int, mode: int, count: int) -> None:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, count, 0, os.SEEK_CUR)


def no_folder(path, flags, *rest, **named):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied")
    return real_open(path, flags, *rest, **named)


def become_foreign() -> None:
    """Take away what is missing on Windows; what was imported before keeps it."""
    sys.modules.update(fcntl=None, resource=None, msvcrt=types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    os.open = no_folder
    for name in ("fork", "sched_getaffinity", "sysconf", "getloadavg"):
        delattr(os, name)
    for name in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        delattr(signal, name)
    multiprocessing.set_start_method("spawn")
    from runtime import memory
    memory.PROCESS = memory.GROUPS = memory.MEMORY = Path("no such folder")


real_open = os.open
if __name__ == "__main__":
    import torch  # noqa: F401, torch and its own imports are not what is tried
    become_foreign()
    import main
    sys.exit(main.main())
