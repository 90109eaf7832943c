"""Checks the contents of a stored training state before anything is changed by it; a state may come from anywhere."""
import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from runtime import process
from runtime.log import Log

COUNTS = ("epoch", "step", "steps", "skipped", "missed", "rollbacks")          # progress that is a whole number from 0


def wrong_part(state: dict) -> str:
    """Return what is wrong in a state that has all parts, as in "'log' names ../x", or '' if nothing is."""
    for check in (_log, _progress, _random, _threads, _auto, _tensors):
        found = check(state)
        if found:
            return found
    return ""


def _log(state: dict) -> str:
    for name, length in state["log"].items():
        if name not in Log.FILES or not _is_count(length):
            return f"'log' may only state the lengths of {' and '.join(Log.FILES)}, not {name!r:.60}: {length!r:.60}"
    return ""


def _progress(state: dict) -> str:
    for name, value in state["progress"].items():
        if name in COUNTS and not _is_count(value):
            return f"'{name}' is {value!r:.60}, not a whole number from 0"
        if name in ("best", "last_loss") and not (_is_number(value) and value == value):
            return f"'{name}' is {value!r:.60}, not a number"
        if name == "chosen" and not (isinstance(value, str) and not {"\n", "\r", "\0", "\x1b"} & {*value} and len(value) < 1000):
            return f"'chosen' is {value!r:.60}, not the best epoch in words"
        if name == "rate" and not (_is_number(value) and 0 < value <= 1):
            return f"'{name}' is {value!r:.60}, not a number above 0 and at most 1"
    seen = state["progress"].get("seen", [])
    if not isinstance(seen, list) or not all(isinstance(row, dict) and row.keys() == seen[0].keys() and {*map(type, row)} == {str}
                                             and all(map(_is_number, row.values())) for row in seen):
        return "'seen' is not a list of losses"
    return ""


def _random(state: dict) -> str:
    stated = state["random"]
    tries: dict[str, Callable[[], object]] = {
        "python": lambda: random.Random().setstate((stated["python"][0], tuple(stated["python"][1]), stated["python"][2])),
        "numpy": lambda: np.random.RandomState().set_state(tuple(stated["numpy"])),
        "torch": lambda: torch.Generator().set_state(stated["torch"]),
        "cuda": lambda: stated["cuda"] is None or stated["cuda"].view(torch.uint8),
    }
    for name, attempt in tries.items():
        try:
            attempt()
        except Exception:                 # of any kind: the values may be of any type
            return f"'random' has no valid state of {name}"
    return ""


def _threads(state: dict) -> str:
    stated = state.get("threads", {"threads": 1, "cores": 1})
    if not isinstance(stated, dict) or set(stated) != {"threads", "cores"} or not all(map(_is_count, stated.values())):
        return "'threads' does not state the numbers of threads and cores"
    return ""


def _auto(state: dict) -> str:
    stated = state.get("auto", {"precision": "single", "parts": []})
    right = isinstance(stated, dict) and set(stated) == {"precision", "parts"} and isinstance(stated["parts"], list)
    if not right or stated["precision"] not in process.PRECISIONS or not all(_is_count(each) and each for each in stated["parts"]):
        return "'auto' does not state a precision and numbers of parts"
    return ""


def _tensors(state: dict) -> str:
    for part in ("network", "side", "average"):
        for name, value in state[part].items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                return f"'{part}' holds {name!r:.60}, which is not a tensor"
    return ""


def moments(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError unless an optimiser has for each weight all values that its next step needs, finite and of the weight's shape."""
    weight = torch.zeros(1, requires_grad=True)
    weight.grad = torch.zeros(1)
    example = type(optimizer)([weight], lr=0.0)                     # type: ignore[call-arg]
    example.param_groups[0].update({key: value for key, value in optimizer.param_groups[0].items() if key != "params"})
    example.step()
    for parameter, values in optimizer.state.items():
        for name in example.state[weight] if values != {} else ():
            value = values[name]
            shape = value.shape == parameter.shape or (name == "step" and value.shape == () and value >= 0)
            if not shape or not value.isfinite().all():
                raise ValueError(name)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: object) -> bool:
    return type(value) in (int, float)
