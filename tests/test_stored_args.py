"""Flags of older versions: every later version accepts an args.json that an older version wrote."""
import json
import shutil
from pathlib import Path

import pytest

import model
import option
from runtime import experiment
from tests.conftest import TINY

STORED = sorted((Path(__file__).parent / "stored").glob("*/*.json"))
STORED = [path for path in STORED if path.stem in model.MODELS]
IDS = [f"{path.parent.name}-{path.stem}" for path in STORED]
SAPNET = STORED[IDS.index("0.1.0-sapnet")]


@pytest.mark.parametrize("path", STORED, ids=IDS)
def test_a_stored_file_gives_the_same_flags(place, path):
    """A stored args.json gives the same flags by --config and by --load; Rain2Avoid's file names the folder photos."""
    (place / "photos").mkdir()
    stored = json.loads(path.read_text())
    args = option.parse(["--config", str(path)])
    assert {flag: args.flags[flag] for flag in stored} == stored
    newer = set(args.flags) - set(stored) - set(experiment.PASSING)
    assert all(args.origin[flag].startswith(("default", "recipe")) for flag in newer)
    folder = experiment.folder_of(stored["save"])
    folder.mkdir(parents=True)
    shutil.copy(path, folder / "args.json")
    args = option.parse(["--load", stored["save"]])
    assert {flag: args.flags[flag] for flag in stored} == stored and args.origin["lr"] == str(folder / "args.json")


def test_all_models_of_the_first_version_are_stored():
    assert len([name for name in IDS if name.startswith("0.1.0-")]) == 10


def test_what_a_file_lacks_is_filled(place):
    """Each flag that is removed from SAPNet's file gets its value from the recipe, or else the built-in default."""
    stored = json.loads(SAPNET.read_text())
    for flag in stored:
        rest = {key: value for key, value in stored.items() if key != flag}
        Path("args.json").write_text(json.dumps(rest))
        args = option.parse(["--config", "args.json", "--model", "sapnet"])
        # the file has other values; its `augment` ends the `no_augment` of the recipe
        unlike = {"channels": 32, "recurrent_iter": 6, "use_dilation": True, "save": "test", "no_augment": False}
        assert args.flags[flag] == unlike.get(flag, stored[flag]), flag
        assert {key: args.flags[key] for key in rest} == rest, flag


@pytest.mark.parametrize("how, place_of", [("--config", "config args.json"), ("--load", "experiment/x/args.json")])
def test_an_unknown_flag_is_refused(fails, place, how, place_of):
    text = json.dumps(json.loads(SAPNET.read_text()) | {"tilt": 3})
    (place / "experiment" / "x").mkdir(parents=True)
    for path in ("args.json", "experiment/x/args.json"):
        Path(path).write_text(text)
    assert fails(how, {"--config": "args.json", "--load": "x"}[how]) == f"main.py: error: {place_of} sets an unknown flag 'tilt'"


def test_a_flag_that_was_renamed_or_removed(place, monkeypatch):
    monkeypatch.setattr(experiment, "RENAMED", {"learning_rate": "lr", "tilt": ""})
    Path("args.json").write_text(json.dumps({"learning_rate": 0.25, "tilt": 3}))
    args = option.parse(["--config", "args.json"])
    assert args.lr == 0.25 and "tilt" not in args.flags


def test_a_finished_experiment_of_an_older_version_is_known(run, trained):
    """If args.json lacks a newer flag, the same command finds the experiment finished; another value of the flag is refused."""
    path = trained / "args.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key not in ("memory", "gclip")}))
    status, text = run("--data_train", "set", "--save", "x", *TINY)
    assert status == 0 and "is finished" in text
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key not in ("memory", "gclip")}))
    status, text = run("--data_train", "set", "--save", "x", *TINY, "--gclip", "1")
    assert status == 2 and "experiment/x exists already" in text
