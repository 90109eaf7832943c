"""A start reads and hashes a model file once, and does not keep it in memory."""
import gc
import weakref
from collections import Counter
from pathlib import Path

import pytest

import trainer
from model import weights
from runtime import files
from tests.conftest import REPO, TINY, make_pairs
from tests.test_stored import rewrite, unpack
from tool import export, serve


@pytest.fixture
def old(place) -> Path:
    """A model file of version 0.1.0."""
    return unpack(REPO / "tests/stored/0.1.0/smgarn.pt.xz", "old.pt")


@pytest.fixture
def reads(monkeypatch) -> Counter:
    """How often each file of tensors is read and hashed."""
    count, before = Counter(), files.read_tensors

    def read_tensors(path):
        count[Path(path).name] += 1
        return before(path)
    weights.forget()
    monkeypatch.setattr(files, "read_tensors", read_tensors)
    return count


def test_a_test_reads_its_file_once(run, old, reads):
    make_pairs(Path("dataset/set"), 2)
    assert run("--test_only", "--pre_train", old, "--data_test", "set", "--cpu")[0] == 0
    assert reads == {"old.pt": 1}


def test_a_continued_test_reads_its_file_once(run, trained, reads):
    assert run("--test_only", "--load", "x", "--data_test", "set", "--cpu")[0] == 0
    assert reads == {"model_best.pt": 1}


def test_a_training_reads_its_file_once(run, old, reads):
    """Its own best weights are read once, too, at the end."""
    make_pairs(Path("dataset/set"), 2, masks=True)
    assert run("--pre_train", old, "--data_train", "set", "--save", "y", *TINY)[0] == 0
    assert reads == {"old.pt": 1, "model_best.pt": 1}


def test_networks_for_each_picture_read_their_file_once(run, place, reads):
    unpack(REPO / "tests/stored/0.1.0/rain2avoid.pt.xz", "old.pt")
    make_pairs(Path("dataset/set"), 2)
    status, text = run("--model", "rain2avoid", "--data_train", "set", "--pre_train", "old.pt", "--save", "y", "--epochs", "1",
                       "--test_every", "1", "--patch_size", "32", "--sdr_num", "2", "--cpu", "--n_threads", "0", "--threshold", "0")
    assert status == 0 and text.count("tensors matched") == 2, text
    assert reads == {"old.pt": 1}


def test_tools_read_each_file_once(old, reads, capsys):
    unpack(REPO / "tests/stored/0.1.0/unet.pt.xz", "unet.pt")
    assert set(serve.find(["old.pt", "unet.pt"])) == {"old (smgarn)", "unet (unet)"}
    assert reads == {"old.pt": 1, "unet.pt": 1}
    assert weights._read.cache_info().currsize == 0
    reads.clear()
    export.run(["unet.pt", "--torch"])
    assert reads == {"unet.pt": 1}


def test_a_changed_file_is_read_again(old):
    assert weights.describe(old)["channels"] == 4
    arguments = files.read_tensors(old)["arguments"]
    rewrite(old, arguments=arguments | {"channels": 5})
    assert weights.describe(old)["channels"] == 5


@pytest.mark.parametrize("more", [[], ["--resume", "-1"]], ids=["fresh", "resumed"])
def test_a_file_does_not_stay_in_memory(run, old, monkeypatch, more):
    """While a network is trained, the tensors of the file from which it started are gone; so they are when it is resumed."""
    make_pairs(Path("dataset/set"), 2, masks=True)
    command = ["--pre_train", old, "--data_train", "set", "--save", "y", *TINY]
    if more:
        assert run(*command)[0] == 0
        command[command.index("--epochs") + 1] = "2"
    weights.forget()
    kept, alive = [], []
    before = files.read_tensors

    def read_tensors(path):
        content = before(path)
        if Path(path) == old:
            kept.extend(weakref.ref(value) for value in content["state"].values())
        return content

    class Watched(trainer.Trainer):
        def train_step(self, batch):
            gc.collect()
            alive.append(sum(each() is not None for each in kept))
            return super().train_step(batch)
    monkeypatch.setattr(files, "read_tensors", read_tensors)
    monkeypatch.setattr("main.Trainer", Watched)
    assert run(*command, *more)[0] == 0
    assert len(kept) == 130 and alive == [0, 0]
