"""A changed state.pt is refused in one sentence, whatever part of it is changed; random changes find no traceback."""
import copy
import random
from pathlib import Path

import pytest
import torch

from runtime import files
from tests.conftest import TINY

STATE, BEFORE = (Path("experiment/x/model") / name for name in ("state.pt", "state_before.pt"))
FLAGS = ("--data_train", "set", "--save", "x", "--loss", "1*L1", *TINY, "--no-report", "--no-audit")
VALUES = [None, -1, 1e308, float("nan"), "x", [], {}, 2**70, [1, 2], {"a": 1}, (1, 2), torch.zeros(3), torch.zeros(0),
          torch.tensor(float("nan")), torch.zeros(3, dtype=torch.complex64)]
UNFIT = "does not fit these flags"


def put(state: dict, path: tuple, value: object) -> dict:
    """Return a copy of a state with another value at a path of keys."""
    changed = part = copy.deepcopy(state)
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return changed


def paths(value: object, path: tuple = ()) -> list[tuple]:
    """Return the paths of keys of all parts of a state except single weights."""
    inner = value if isinstance(value, dict) and path != ("network",) else {}
    return [path] * bool(path) + [found for key, part in inner.items() for found in paths(part, (*path, key))]


@pytest.mark.parametrize("path, value, words", [
    (("optimizer", "state", 0, "exp_avg"), torch.zeros(3), UNFIT),
    (("optimizer", "state", 0, "exp_avg"), "x", UNFIT),
    (("optimizer", "state", 0), {"step": torch.tensor(1.0)}, UNFIT),
    (("optimizer", "state", 0), [], UNFIT),
    (("optimizer", "state", 0, "step"), torch.tensor(-1.0), UNFIT),
    (("optimizer", "state", 0, "exp_avg_sq"), float("nan"), UNFIT),
    (("progress", "rate"), 1e308, "'rate' is 1e+308, not a number above 0 and at most 1"),
    (("progress", "last_loss"), float("nan"), "'last_loss' is nan, not a number"),
    (("progress", "seen"), [{"loss": 1.0}, {"L1": 1.0}], "'seen' is not a list of losses"),
])
def test_parts_that_cannot_be_used(run, fails, pairs, path, value, words):
    assert run(*FLAGS)[0] == 0
    files.write_tensors(STATE, put(files.read_tensors(STATE), path, value))
    BEFORE.unlink(missing_ok=True)
    assert words in fails(*FLAGS, "--epochs", "2", "--resume", "-1")


def test_random_changes(run, pairs):
    """Seeded changes of any part: the training continues, or the status is 2 with one sentence (main lets no other error pass)."""
    assert run(*FLAGS)[0] == 0
    good, draw = files.read_tensors(STATE), random.Random(2)
    places = paths(good)
    seen = set()
    for epochs in range(2, 30):
        files.write_tensors(STATE, put(good, draw.choice(places), draw.choice(VALUES)))
        BEFORE.unlink(missing_ok=True)
        status, text = run(*FLAGS, "--epochs", str(epochs), "--resume", "-1", "--test_every", "1", "--val_epochs", "99")
        assert status in (0, 2), text
        seen.add(status)
        files.write_tensors(STATE, good)
    assert seen == {0, 2}


@pytest.mark.parametrize("optimizer", ["SGD", "RMSPROP", "ADAMW"])
def test_every_optimizer_resumes(run, pairs, optimizer):
    assert run(*FLAGS, "--optimizer", optimizer)[0] == 0
    status, text = run(*FLAGS, "--optimizer", optimizer, "--epochs", "2", "--resume", "-1")
    assert status == 0, text


def test_another_momentum(run, fails, pairs):
    """RMSprop without momentum has stored no buffer for it."""
    assert run(*FLAGS, "--optimizer", "RMSPROP", "--momentum", "0")[0] == 0
    assert UNFIT in fails(*FLAGS, "--optimizer", "RMSPROP", "--momentum", "0.9", "--epochs", "2", "--resume", "-1")


def test_both_states_damaged(run, fails, pairs):
    """The sentence names both files and what to do: the epochs whose states are kept, else the weights."""
    assert run(*FLAGS, "--epochs", "2", "--save_models")[0] == 0
    for path in (STATE, BEFORE):
        path.write_bytes(path.read_bytes()[:5000])
    sentence = fails(*FLAGS, "--epochs", "3", "--resume", "-1")
    assert f"{STATE} is damaged" in sentence and f"{BEFORE} is damaged" in sentence
    assert sentence.endswith("; states are kept of the epochs 1, 2: name one with --resume")
    for epoch in (1, 2):
        STATE.with_name(f"state_{epoch}.pt").unlink()
    sentence = fails(*FLAGS, "--epochs", "3", "--resume", "-1")
    assert sentence.endswith("; start a new training from its weights with --pre_train experiment/x/model/model_latest.pt and another "
                             "--save")
