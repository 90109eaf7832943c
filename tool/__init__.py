"""Command-line tools other than main.py: python -m tool.<name>."""
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from runtime.errors import Failure, Stopped, UserError, explained, short
from runtime.log import print_any_text  # imports no torch, which runtime.waiting must precede

LONGEST = 2000                            # characters of an error message


def guarded(name: str, run: Callable[[], object]) -> int:
    """Run a tool, print an error as one sentence, and return the exit status: 0, 1 for a failure, 2 for bad input, 128 + signal number."""
    print_any_text()
    try:
        with _orderly():
            run()
        return 0
    except UserError as error:
        text, status = str(error), 2
    except Failure as error:
        text, status = str(error), 1
    except OSError as error:
        text, status = explained(error)
    except (MemoryError, RuntimeError) as error:
        if not _of_memory(error):
            raise
        text, status = f"the memory is full, or the system ended a process that reads images for this reason ({short(error, 200)})", 1
    except KeyboardInterrupt:
        text, status = "stopped by Ctrl-C", 130
    except Stopped as stop:
        text, status = str(stop), stop.status
    print(f"{name}: error: {short(text, LONGEST)}", file=sys.stderr, flush=True)
    return status


def _of_memory(error: Exception) -> bool:
    """Return whether the cause of an error is too little memory, perhaps of a process that reads images."""
    from runtime import memory  # imports torch, which runtime.waiting must precede

    return memory.lacks(error) or ("DataLoader worker" in str(error) and "killed" in str(error))


@contextlib.contextmanager
def _orderly() -> Iterator[None]:
    """Within the block SIGTERM raises Stopped, so that no temporary file is left."""
    def stop(*_) -> None:
        raise Stopped("stopped by SIGTERM", 128 + signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
