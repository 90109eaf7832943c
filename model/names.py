"""Names of tensors: one table for each network, between the names in released files and the names here, read in both directions."""
import importlib
import re

from torch import Tensor

from model.method import Method


def renamed(state: dict[str, Tensor], table: dict[str, str], back: bool = False) -> dict[str, Tensor]:
    """Return a released state_dict with the names of this program, or with `back` one of this program with the released names.

    `table` maps the beginning of a released name, up to a dot or the end, to the beginning of the name here; `*` stands for a number,
    which is kept. The longest beginning that fits is replaced. A name that does not fit keeps its text.
    """
    pairs = [(ours, theirs) if back else (theirs, ours) for theirs, ours in table.items()]
    rules = [(re.compile(re.escape(old).replace(r"\*", "([0-9]+)") + r"(?=\.|$)"), new.replace("*", "{}"))
             for old, new in sorted(pairs, key=lambda pair: len(pair[0]), reverse=True)]
    return {_renamed(key, rules): value for key, value in state.items()}


def _renamed(key: str, rules: list[tuple[re.Pattern, str]]) -> str:
    for old, new in rules:
        if found := old.match(key):
            return new.format(*found.groups()) + key[found.end():]
    return key


def inside(blocks: dict[str, str], parts: dict[str, str]) -> dict[str, str]:
    """Return the part of a table for equal blocks: every part of every block, `{"body.*.conv1": "blocks.*.enter", …}`."""
    return {f"{theirs}.{part}": f"{ours}.{name}" for theirs, ours in blocks.items() for part, name in parts.items()}


def released(method: Method) -> dict[str, Tensor] | None:
    """Return the network's state_dict with the names of released files; None if its package has no `to_official` that leads back."""
    package, state = importlib.import_module(type(method).__module__), method.network.state_dict()
    if not hasattr(package, "to_official"):
        return None
    theirs = package.to_official(state)
    again = package.from_official(theirs)
    return theirs if again.keys() == state.keys() and all(again[key] is state[key] for key in state) else None
