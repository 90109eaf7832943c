"""Parsing of flags and conversion of their texts."""
import argparse
import difflib
import math
import re
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from runtime.errors import UserError, short


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """A help formatter that shows defaults, except empty texts and False."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in ("", False) else super()._get_help_string(action)


def typed(action: argparse.Action, text: str) -> Any:
    """Return a text converted by the flag's type; raises ValueError or ArgumentTypeError for an invalid text."""
    return action.type(text) if callable(action.type) else text


class Joined(argparse.Action):
    """An argparse action that stores several values as one text, joined by `mark`."""

    def __init__(self, *args, mark: str, **options):
        super().__init__(*args, **options)
        self.mark = mark

    def __call__(self, parser, namespace, values, option_string=None):
        """Store the values (called by argparse)."""
        setattr(namespace, self.dest, self.mark.join(values))


class Code(argparse.Action):
    """An argparse action for a flag that names code: it counts only if it is typed, so that no file decides what is run."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Store the value (called by argparse)."""
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """A parser that can return the typed flags without defaults, and whose errors are one sentence."""

    def parse_known_args(self, args=None, namespace=None):
        """Parse as argparse does (called by its other functions); raises UserError also for what makes argparse or the system fail."""
        for text in sys.argv[1:] if args is None else args:
            if "\0" in text:
                self.error(f"'{short(text)}' contains a NUL character, which no text or path may contain")
            if text.startswith("--") and text.endswith("=--"):
                self.error(f"{short(text)}: '--' is not a value of this flag")
        return super().parse_known_args(args, namespace)

    def given(self, argv: list[str] | None, others: bool = False) -> dict[str, Any]:
        """Return the flags that a command line sets, without defaults; with `others`, unknown flags are ignored."""
        unset = object()
        empty = Namespace(**dict.fromkeys((action.dest for action in self._actions), unset))
        found = self.parse_known_args(argv, empty)[0] if others else self.parse_args(argv, empty)
        return {flag: value for flag, value in vars(found).items() if value is not unset}

    def defaults(self) -> dict[str, Any]:
        """Return the default of every flag, in the order of --help."""
        return {action.dest: typed(action, action.default) if isinstance(action.default, str) else action.default
                for action in self._actions if action.default != argparse.SUPPRESS}

    def converted(self, flag: str, value: object) -> object:
        """Return a value from a file, converted and checked like a typed one; raises ValueError for an invalid value."""
        return converted(next(action for action in self._actions if action.dest == flag), value)

    def names_code(self, flag: str) -> bool:
        """Return whether a flag counts only if it is typed."""
        return any(action.dest == flag and isinstance(action, Code) for action in self._actions)

    def error(self, message: str):
        unknown = re.match(r"unrecognized arguments: (--?[\w-]+)", message)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            close = difflib.get_close_matches(unknown[1], known, 1)
            message = f"unknown flag {unknown[1]}" + (f"; did you mean {close[0]}?" if close else "; see --help")
        raise UserError(message)


def number(kind: type, low: float, high: float = math.inf) -> Callable[[str], float]:
    """Return an argparse type that accepts finite numbers of type `kind` (int or float) from low to high."""
    def convert(text: str):
        try:
            value = kind(text)
            fits = low <= value <= high and math.isfinite(value)
        except (ValueError, OverflowError):               # OverflowError: a whole number beyond the floats
            fits = False
        if not fits:
            upper = f" to {high}" if high < math.inf else " upwards"
            raise argparse.ArgumentTypeError(f"'{short(text)}' is not a {'whole ' * (kind is int)}number from {low:g}{upper}")
        return value
    return convert


def converted(action: argparse.Action, value: object) -> object:
    """Return a value from a file, converted and checked like a typed value of this flag; raises ValueError for an invalid value."""
    if value is None and action.default is None:
        return value
    if isinstance(value, bool) or isinstance(action.default, bool):
        if isinstance(value, bool) and isinstance(action.default, bool):
            return value
        raise ValueError(value)
    if isinstance(action, Joined) and isinstance(value, (list, tuple)):
        value = action.mark.join(map(str, value))
    elif action.nargs not in (None, "?") and not isinstance(action, Joined):
        if not isinstance(value, (list, tuple)):
            raise ValueError(value)
        return [_one(action, part) for part in value]
    return _one(action, value)


def _one(action: argparse.Action, value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or "\0" in str(value):
        raise ValueError(value)
    try:
        result = typed(action, str(value))
    except argparse.ArgumentTypeError as error:
        raise ValueError(value) from error
    if action.choices is not None and result not in action.choices:
        raise ValueError(value)
    return result


def interval(text: str) -> str:
    """Check an argparse value and return it: `500` is a number of steps, `10m` a number of minutes."""
    number(float, 0)(text.removesuffix("m")) if text.endswith("m") else number(int, 0)(text)
    return text


def tile_side(text: str) -> str:
    """Check an argparse value and return it: `auto`, or a side in pixels from 16."""
    return text if text == "auto" else str(number(int, 16)(text))


def parts(text: str) -> int | str:
    """Return an argparse value: `auto`, or a number of parts from 1."""
    return text if text == "auto" else int(number(int, 1, 10**6)(text))


COUNT, SIZE, EPOCHS = number(int, 0, 10**6), number(int, 1, 10**6), number(int, 1, 10**9)
REAL, RATIO = number(float, 0), number(float, 0, 1)


def is_whole(text: str, low: int = 0, high: int = 10**9) -> bool:
    """Return whether a text is a whole number from low to high; Python refuses to convert more than 4,300 digits."""
    return text.isdecimal() and len(text) < 1000 and low <= int(text) <= high


def whole_numbers(text: str, flag: str) -> list[int]:
    """Return the numbers of a text `a-b-c`, each from 1; raises UserError for any other text."""
    parts = text.split("-")
    if not all(is_whole(part, 1) for part in parts):
        raise UserError(f"{flag} '{short(text)}' is not a whole number from 1 to 1000000000 or several such numbers joined by '-', "
                        "as in 100-200")
    return [int(part) for part in parts]


def scaled(ends: list[int], epochs: int) -> list[int]:
    """Return the ends of stages in proportion to a number of epochs; each stage has an epoch, or the first ones if there are too few."""
    found = [0]
    for number, end in enumerate(ends, 1):
        latest = max(epochs - len(ends) + number, number)                  # leaves an epoch for each later stage
        found.append(min(max(round(end * epochs / ends[-1]), found[-1] + 1), latest, epochs))
    return found[1:]


def betas(text: str) -> tuple[float, float]:
    """Return the two numbers of a text, each from 0 to below 1; brackets, commas, spaces or a hyphen may separate them."""
    parts = [part for part in re.split(r"[\s,()]+|(?<!e)-", text) if part]
    try:
        first, second = map(float, parts)
    except ValueError:
        first = second = -1.0
    if not (0 <= first < 1 and 0 <= second < 1):
        raise UserError(f"--betas '{short(text)}' is not two numbers from 0 to below 1, as in --betas 0.9 0.999")
    return first, second


def ranges(text: str, both: bool) -> dict[str, tuple[int, int]]:
    """Return the ranges of a text `a-b` or `a-b/c-d`, positions from 1: {'train': (a, b), 'test': (c, d)}.

    A single range applies to the training images only; with `both` it also applies to the test images.
    """
    if not text:
        return {}
    parts = [part.split("-") for part in text.split("/")]
    if len(parts) > 2 or not all(len(part) == 2 and is_whole(part[0], 1) and is_whole(part[1], int(part[0])) for part in parts):
        raise UserError(f"--data_range '{short(text)}' is not first-last or first-last/first-last with positions from 1, "
                        "as in 1-800/801-810 (training/test)")
    found = [(int(first), int(last)) for first, last in parts]
    return {"train": found[0]} | ({"test": found[-1]} if both or len(found) == 2 else {})


def noise_levels(text: str) -> tuple[int, int] | None:
    """Return the two noise levels of a text `a-b`, on the scale 0-255; None for an empty text."""
    low, mark, high = text.partition("-")
    if text and not (mark and is_whole(low) and is_whole(high, int(low), 255)):
        raise UserError(f"--sigma '{short(text)}' is not two noise levels from 0 to 255, as in --sigma 0-55")
    return (int(low), int(high)) if text else None


def check_rising(epoch_chg: str) -> None:
    """Raise UserError if the epochs of --epoch_chg do not rise; '' is no value."""
    ends = whole_numbers(epoch_chg, "--epoch_chg") if epoch_chg else []
    if sorted(set(ends)) != ends:
        raise UserError(f"--epoch_chg {epoch_chg} must rise; it lists the epochs at which the stages end, as in 135-238-314-347")
