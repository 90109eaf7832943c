"""Command-line tools other than main.py: python -m tool.<name>."""
import sys
from collections.abc import Callable

from runtime.errors import Failure, UserError, explained, short
from runtime.log import print_any_text  # imports no torch, which runtime.waiting must precede

LONGEST = 2000                            # characters of an error message


def guarded(name: str, run: Callable[[], object]) -> int:
    """Run a tool, print an error as one sentence, and return the exit status: 0, 1 for a failure, 2 for bad input, 130 for Ctrl-C."""
    print_any_text()
    try:
        run()
        return 0
    except UserError as error:
        text, status = str(error), 2
    except Failure as error:
        text, status = str(error), 1
    except OSError as error:
        text, status = explained(error)
    except KeyboardInterrupt:
        text, status = "stopped by Ctrl-C", 130
    print(f"{name}: error: {short(text, LONGEST)}", file=sys.stderr, flush=True)
    return status
