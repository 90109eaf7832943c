"""Images, cache files and worker processes that disappear or are damaged while a training runs."""
import multiprocessing
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import main
from contract import Item
from data import cache, loader, quarantine
from runtime import files
from runtime.errors import Failure, UserError, without_trace
from tests.conftest import REPO, TINY, make_pairs, python
from trainer import Trainer

FLAGS = ["--data_train", "set", "--save", "x", *TINY, "--loss", "1*L1", "--test_every", "20", "--ext", "img", "--val_epochs", "9"]
BAD = "dataset/set/input/07.png"


@pytest.fixture
def many(place) -> Path:
    """A data set of 44 pairs, of which 4 are held out."""
    return make_pairs(place / "dataset" / "set", 44, size=(16, 16))


@pytest.fixture
def after(monkeypatch):
    """Call a function after a number of training steps: after(3, damage)."""
    def call(steps: int, action) -> None:
        made, real = [], Trainer.train_step

        def step(self, batch):
            made.append(1)
            if len(made) == steps:
                action()
            return real(self, batch)
        monkeypatch.setattr(Trainer, "train_step", step)
    return call


def cut(name: str = BAD) -> None:
    Path(name).write_bytes(Path(name).read_bytes()[:60])


def weights_of(name: str) -> dict[str, torch.Tensor]:
    return files.read_tensors(f"experiment/{name}/model/model_latest.pt")["state"]


def test_a_cache_file_that_is_cut_short_is_decoded_again(place):
    """Without the check of the size, the process ends with SIGBUS when it reads a page of the map behind the end."""
    make_pairs(Path("set"), 1, size=(200, 200))
    code = ("import os; from pathlib import Path; from data import cache, image, loader; from contract import Item\n"
            "source = Path('set/input/00.png'); places = cache.fill(Path('bin'), Path(), [source])\n"
            "read = cache.Cached(Path('bin'), Path(), places)\n"
            "images = loader.Images([Item('a', {'input': source})], (), read, patch_size=16)\n"
            "whole = [images[(1, n, 0)].input for n in range(20)]\n"
            "os.truncate(places[str(source)], 5000)\n"
            "assert all((images[(1, n, 0)].input == each).all() for n, each in enumerate(whole))\n"
            "os.remove(places[str(source)]); assert (images[(1, 0, 0)].input == whole[0]).all()")
    result = subprocess.run(python("-c", code), env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True)
    assert result.returncode == 0, (result.returncode, result.stderr)


def test_cached_pixels_are_those_of_the_image(place):
    source = make_pairs(Path("set"), 1) / "input" / "00.png"
    places = cache.fill(Path("bin"), Path(), [source])
    assert np.array_equal(cache.read(places[str(source)], Path("none.png")), np.asarray(cache.image.read(source)))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_replaced_by_one_of_its_kind(many, workers):
    """The replacement depends on the seed and the position, not on the workers; the other samples stay the same."""
    items = [Item(str(n), {"input": many / "input" / f"{n:02}.png"}, kind=n % 2) for n in range(40)]
    images = loader.Images(items, (), seed=3, patch_size=8)
    draws = loader.Draws([list(range(40))], 4, 10, seed=3)
    before = list(loader.train_loader(images, draws, 0, pin=False))
    cut(str(many / "input" / "07.png"))
    found = list(loader.train_loader(images, draws, workers, pin=False))
    assert sum(len(batch.trouble) for batch in found) == 1
    for old, new in zip(before, found):
        for place, name in enumerate(old.name):
            assert (new.name[place] != name) == (name == "7")
            assert int(new.name[place]) % 2 == int(name) % 2
            assert name == "7" or torch.equal(old.input[place], new.input[place])
    again = list(loader.train_loader(images, draws, 0, pin=False))
    assert [batch.name for batch in again] == [batch.name for batch in found]
    with pytest.raises(UserError, match=r"07\.png: the file is truncated"):
        images[7]                                                  # in a test an image is never replaced


def test_a_training_without_images_stops(many):
    images = loader.Images([Item("a", {"input": many / "none.png"})], (), patch_size=8)
    with pytest.raises(Failure, match=r"20 training images, one after the other, cannot be read any more; .*none\.png"):
        list(loader.train_loader(images, loader.Draws([[0]], 1, 1, seed=1), 1, pin=False))


def test_a_damaged_image_is_named_once_and_a_resumed_training_is_exact(run, many, after):
    """The image is listed in quarantine.txt, so that the resumed training starts, and draws the same replacements."""
    after(1, cut)
    status, text = run(*FLAGS, "--epochs", "4", "--save", "whole", "--seed", "5")
    assert status == 0 and text.count("in quarantine: cannot read the image dataset/set/input/07.png: the file is truncated") == 1
    line, = Path("experiment/whole/quarantine.txt").read_text().splitlines()
    assert line.startswith(f"{BAD}\tcannot read the image {BAD}: the file is truncated")
    assert run(*FLAGS, "--epochs", "4", "--save", "other")[0] == 0         # a new training reports it when it reads it
    make_pairs(many, 44, size=(16, 16))
    after(1, cut)
    assert run(*FLAGS, "--epochs", "2", "--save", "parts", "--seed", "5")[0] == 0
    status, text = run("--load", "parts", "--epochs", "4")
    assert status == 0 and "in quarantine" not in text
    one, two = weights_of("whole"), weights_of("parts")
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_quarantined_header_is_no_error_when_the_training_goes_on(run, fails, many, after):
    """At the start a damaged file is an error, unless this experiment lists it: also the first file, which the check of the loss reads."""
    first = BAD.replace("07", "00")
    after(1, lambda: Path(first).write_bytes(b"x"))
    assert run(*FLAGS, "--epochs", "2")[0] == 0
    assert quarantine.read(Path("experiment/x")).keys() == {first}
    assert run("--load", "x", "--epochs", "3")[0] == 0
    assert f"cannot read the image {first}" in fails(*FLAGS, "--save", "y")
    assert f"cannot read the image {first}" in fails(*FLAGS, "--reset")


def test_too_many_unreadable_images_stop_the_training(fails, many, after):
    after(1, lambda: [path.unlink() for path in list((many / "input").iterdir())[:20]])
    sentence = fails(*FLAGS, "--epochs", "3", status=1)
    assert "3 of 40 training images can no longer be read, more than 5%; they are listed in experiment/x/quarantine.txt" in sentence
    assert len(Path("experiment/x/quarantine.txt").read_text().splitlines()) == 3


@pytest.mark.parametrize("number, words", [
    (signal.SIGKILL, "was killed by signal 9 (Killed): the system does this if the memory is full"),
    (signal.SIGBUS, "was killed by signal 7 (Bus error): /dev/shm is full, or a file of the image cache was cut short"),
])
def test_a_killed_worker(fails, many, after, number, words):
    after(2, lambda: os.kill(multiprocessing.active_children()[0].pid, number))
    sentence = fails(*FLAGS, "--n_threads", "1", status=1)
    known = f"a worker process, which reads images, {words}" in sentence
    # the signal is not known if the worker ends while it hands over a batch
    assert (known or "a worker process, which reads images, ended without a message" in sentence) and "--resume -1" in sentence


def test_what_a_worker_says():
    assert "ended without a message" in main.about_worker("DataLoader worker (pid(s) 5) exited unexpectedly None")
    text = ("Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File \"x\", line 1, in y\n"
            "OSError: [Errno 5] Input/output error: 'a.png'\n")
    assert without_trace(text) == "[Errno 5] Input/output error: 'a.png'"
    assert str(Failure(text.replace("OSError", "runtime.errors.Failure"))) == "[Errno 5] Input/output error: 'a.png'"
    assert str(UserError("--loss 'UserError: x' is wrong")) == "--loss 'UserError: x' is wrong"
