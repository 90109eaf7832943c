"""Every later version resumes a training state that an older version wrote."""
import json
from pathlib import Path

import pytest

from runtime import VERSION, files
from tests.conftest import REPO, TINY, make_pairs
from tests.stored import rewrite, unpack

STATES = sorted((REPO / "tests" / "stored").glob("*/state.pt.xz"))


def stored_experiment(packed: Path = STATES[0]) -> Path:
    """Create experiment/x as a version left it after the first of two epochs, and a small test set; return the state's path."""
    state = unpack(packed, "experiment/x/model/state.pt")
    Path("experiment/x/args.json").write_bytes(packed.with_name("state-args.json").read_bytes())
    best = {"format": "unweather model 1", "model": "smgarn", "arguments": {"channels": 2}, "note": {}}
    files.write_tensors(state.with_name("model_best.pt"), best | {"state": files.read_tensors(state)["network"]})
    make_pairs(Path("dataset/set"), 1)
    return state


@pytest.mark.parametrize("packed", STATES, ids=[path.parent.name for path in STATES])
@pytest.mark.parametrize("how", [["--save", "x", "--resume", "-1"], ["--load", "x"]], ids=["resume", "load"])
def test_a_stored_state_goes_on(run, packed, how):
    """The second epoch has the same losses as in the version that wrote the state.

    The allowed relative difference is 1e-6. The rounding error of float32 is 6e-8; the kernels for AVX-512, AVX2 and for no
    extension all gave 3e-8. A state without Adam's moments gives 5e-6, another order of the images 3e-1.
    """
    stored_experiment(packed)
    status, text = run(*how, "--data_test", "set")
    assert status == 0, text
    records = [json.loads(line) for line in Path("experiment/x/log.jsonl").read_text().splitlines()]
    losses = [record["losses"] for record in records if record["event"] == "epoch"]
    assert losses == [pytest.approx(json.loads(packed.with_name("state-result.json").read_text()), rel=1e-6)]


@pytest.mark.parametrize("changes, words", [
    ({"format": "unweather state 3", "version": "0.7.0"},
     f"has the format 'unweather state 3' (written by unweather 0.7.0), but unweather {VERSION} reads 'unweather state 2'; "
     "resume with the version that wrote it, or start from its weights with --pre_train"),
    ({"format": "unweather model 1"}, "is not the state of a training; a training writes state.pt"),
    ({"optimizer": None}, "is not the state of a training: it lacks 'optimizer'"),
    ({"progress": {}}, "is not the state of a training: it lacks 'epoch'")])
def test_a_state_that_cannot_be_read(fails, place, changes, words):
    rewrite(stored_experiment(), **changes)
    assert words in fails("--load", "x")


def test_a_state_without_a_newer_number(run, place):
    """A progress value that an older state lacks starts at its initial value."""
    state = stored_experiment()
    progress = files.read_tensors(state)["progress"]
    rewrite(state, progress={key: value for key, value in progress.items() if key != "skipped"})
    assert run("--load", "x", "--data_test", "set")[0] == 0


def test_a_finished_experiment_lacks_a_new_flag(run, trained):
    """If args.json lacks a flag, the same command continues the experiment; another value of the flag is refused."""
    flags = json.loads((trained / "args.json").read_text())
    assert flags.pop("seed") == 1
    files.write_json(trained / "args.json", flags)
    assert "experiment/x is finished" in run("--data_train", "set", "--save", "x", *TINY)[1]
    assert "experiment/x exists already" in run("--data_train", "set", "--save", "x", *TINY, "--seed", "2")[1]
