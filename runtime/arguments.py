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


def interval(text: str) -> str:
    """Check an argparse value: `500` steps, `10m` minutes."""
    number(float, 0)(text.removesuffix("m")) if text.endswith("m") else number(int, 0)(text)
    return text


def tile_side(text: str) -> str:
    """Check an argparse value: `auto`, or a side in pixels."""
    return text if text == "auto" else str(number(int, 16)(text))


COUNT, SIZE, EPOCHS = number(int, 0, 10**6), number(int, 1, 10**6), number(int, 1, 10**9)
REAL, RATIO = number(float, 0), number(float, 0, 1)


