"""The exceptions that end a command; main.py and the tools print them as one sentence."""
import errno
import re
import traceback
from collections.abc import Callable
from pathlib import Path

# errors of the system that the user can correct: what to do about them
ADVICE = {errno.EACCES: "give this user access to it", errno.EPERM: "give this user access to it", errno.ENAMETOOLONG: "use a shorter name"}
SHOWN = 120                               # characters of a path that an error message shows


class UserError(ValueError):
    """An error that the user can correct; main prints the text as one sentence and exits with status 2."""

    def __str__(self) -> str:
        return without_trace(super().__str__())


def explained(error: OSError) -> tuple[str, int]:
    """Return one sentence about an error of the system, and the exit status: 2 if the user can correct it, otherwise 1."""
    path, advice = str(error.filename or "a file"), ADVICE.get(error.errno or 0)
    text = f"{path if len(path) <= SHOWN else path[:SHOWN] + '…'}: {error.strerror or without_trace(str(error))}"
    return (f"{text}; {advice}", 2) if advice else (text, 1)


class Failure(RuntimeError):
    """An error that stops a run; main prints the text as one sentence and exits with status 1."""

    def __str__(self) -> str:
        return without_trace(super().__str__())


class Interrupted(Exception):
    """SIGTERM or SIGINT arrived during a test."""


class Stopped(BaseException):
    """The run ended after SIGTERM or SIGINT and has saved its state; `status` is the exit status, 128 + the signal number."""

    def __init__(self, text: str, status: int):
        super().__init__(text)
        self.status = status


ENDING = (KeyboardInterrupt, Stopped)     # they end the program also while code of a user runs


class Diverged(Failure):
    """A training cannot continue with its weights; the last saved state is kept."""


def without_trace(text: str) -> str:
    """Return the message of an error; a worker process of the DataLoader puts its traceback and the error's type before it."""
    return re.sub(r"(?s)^Caught .* in (DataLoader worker process|pin memory thread).*\n[\w.]+: ", "", text).strip()


def about(error: BaseException, ours: Callable[[Path], bool], otherwise: Path | None = None) -> str:
    """Return the type, the first line and the place of an error in code of a user: `NameError: name 'z' is not defined (net.py, line 2)`.

    The place is that of a syntax error, else the last line that ran in a file for which `ours` is true, else line 1 of `otherwise`.
    """
    places = [(Path(frame.filename), frame.lineno) for frame in reversed(traceback.extract_tb(error.__traceback__))]
    found = next((place for place in places if ours(place[0])), (otherwise, 1))
    try:
        text = str(error)
    except Exception:                     # a class of the user's may do anything
        text = "an error without a text"
    if isinstance(error, SyntaxError) and error.filename:
        found, text = (Path(error.filename), error.lineno), error.msg
    file, line = found
    root = Path(__file__).parent.parent
    where = f" ({file.relative_to(root) if file.is_relative_to(root) else file}, line {line})" if file else ""
    return f"{type(error).__name__}: {text.strip().partition(chr(10))[0]}{where}"


def short(value: object, most: int = 60) -> str:
    """Return a value as text of one line for a sentence; of a longer text the beginning and the length."""
    try:
        text = " ".join(str(value).split())
    except ValueError:                    # a whole number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def shown(value: object) -> str:
    """Return a value like `short`, a text in quotes."""
    return repr(short(value)) if isinstance(value, str) else short(value)
