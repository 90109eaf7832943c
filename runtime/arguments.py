"""All flags of the command line, in the groups of --help."""
import argparse
import difflib
import math
import re
from collections.abc import Callable

from runtime.errors import UserError


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help with defaults, where there are any worth a word."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help if action.default in ("", False) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str):
        unknown = re.match(r"unrecognized arguments: (--?[\w-]+)", message)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            close = difflib.get_close_matches(unknown[1], known, 1)
            message = f"unknown flag {unknown[1]}" + (f"; did you mean {close[0]}?" if close else "; see --help")
        raise UserError(message)


def number(kind: type, low: float, high: float = math.inf) -> Callable[[str], float]:
    """Return an argparse type: a finite number of that kind from low to high."""
    def convert(text: str):
        try:
            value = kind(text)
            fits = low <= value <= high and math.isfinite(value)
        except ValueError:
            fits = False
        if not fits:
            upper = f" to {high}" if high < math.inf else " upwards"
            raise argparse.ArgumentTypeError(f"'{text}' is not a {'whole ' * (kind is int)}number from {low:g}{upper}")
        return value
    return convert


def converted(action: argparse.Action, value: object) -> object:
    """Return a value that a file states for a flag as if it had been typed; ValueError for one that could not have been."""
    if isinstance(value, (list, tuple)) and action.nargs not in (None, "?", 0):
        return [_one(action, part) for part in value]
    if isinstance(value, bool) and isinstance(action.default, bool) or value is None and action.default is None:
        return value
    if isinstance(action.default, bool):
        raise ValueError
    return _one(action, value)


def _one(action: argparse.Action, value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError
    try:
        result = action.type(str(value)) if action.type else str(value)
    except argparse.ArgumentTypeError as error:
        raise ValueError from error
    if action.choices is not None and result not in action.choices:
        raise ValueError
    return result


def interval(text: str) -> str:
    """Check an argparse value: `500` steps, `10m` minutes."""
    number(float, 0)(text.removesuffix("m")) if text.endswith("m") else number(int, 0)(text)
    return text


def tile_side(text: str) -> str:
    """Check an argparse value: `auto`, or a side in pixels."""
    return text if text == "auto" else str(number(int, 16)(text))


COUNT, SIZE, EPOCHS = number(int, 0, 10**6), number(int, 1, 10**6), number(int, 1, 10**9)
REAL, RATIO = number(float, 0), number(float, 0, 1)


