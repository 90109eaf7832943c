"""Names of tensors: those in the files of other programs, and a table for each network that is read in both directions."""
import importlib
import re
from collections.abc import Iterable, Iterator

from torch import Tensor

from model.method import Method

CONTAINERS = ("state_dict", "params_ema", "params", "model_state_dict", "model", "net")        # keys of the weights in released files
DEPTH = 4                                 # levels of such keys
PREFIXES = ("module.", "_orig_mod.", "net.", "model.")    # of DataParallel, torch.compile and the usual attributes in Lightning modules


def variants(content: dict) -> Iterator[dict[str, Tensor]]:
    """Yield the weights of a released file, from the top level or a common key: as they are, then without the prefixes of all names."""
    for _ in range(DEPTH):
        content = next((content[key] for key in CONTAINERS if isinstance(content.get(key), dict)), content)
    state = {str(key): value for key, value in content.items()}
    yield state
    while state and (prefix := next((prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in state)), "")):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        yield state


def best(candidates: Iterable[dict], expected: dict[str, Tensor]) -> dict:
    """Return the first of several states that consists of the expected tensors, else the one with most of them."""
    found: dict = {}
    for state in candidates:
        if len(fitting(state, expected)) == len(expected) == len(state):
            return state
        if not found or len(fitting(state, expected)) > len(fitting(found, expected)):
            found = state
    return found


def fitting(state: dict, expected: dict[str, Tensor]) -> list[str]:
    """Return the names of the expected tensors that a state has in the expected shape."""
    return [key for key, value in expected.items() if isinstance(state.get(key), Tensor) and state[key].shape == value.shape]


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
