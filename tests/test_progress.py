"""The progress of a long work: tiles count, the time that remains is estimated, and lines replace the bar where there is no terminal."""
import io
from pathlib import Path

import pytest
import torch
from torch import nn

from model.method import Method
from restore.restorer import Restorer, Settings
from runtime.progress import EVERY, Progress, duration
from tests.conftest import photo, save
from tests.test_folders import FLAGS, network_file

__all__ = ["network_file"]


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_without_a_terminal(capsys):
    """One line at most every half minute says what is done and how long the rest takes, by size and by tiles."""
    clock = Clock()
    with Progress("restore photos", 3, "images", total=100, clock=clock) as progress:
        progress.begin(20)
        clock.now += 10
        progress.end()
        assert capsys.readouterr().err == ""
        progress.begin(60)
        clock.now += EVERY
        progress.tiles(1, 3)
        clock.now += 1
        progress.tiles(2, 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["restore photos: 1 of 3 images, tile 1 of 3, 40%, about 1 min remaining"]
    progress.tiles(3, 3)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        """A stream that says it is a terminal."""

        def isatty(self) -> bool:
            return True
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with Progress("restore photos", 2, "images") as progress:
        progress.begin()
        progress.tiles(3, 12)
        progress.bar.refresh()
        assert "restore photos: 0 of 2 images, tile 3 of 12  12%|" in screen.getvalue()
        assert "remaining" in screen.getvalue()


def test_pieces_that_are_iterated():
    progress = Progress("test set", 3, "images")
    assert list(progress.each("abc")) == ["a", "b", "c"]
    assert progress.pieces == progress.finished == 3


@pytest.mark.parametrize("seconds, text", [(0.04, "0.0 s"), (0.42, "0.4 s"), (9.44, "9.4 s"), (12, "12 s"), (59, "59 s"), (60, "1 min"),
                                           (185, "3 min 5 s"), (7800, "2 h 10 min"), (90_000, "1 d 1 h"), (273_600, "3 d 4 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text


class Same(Method):
    """Returns its input."""

    def __init__(self):
        super().__init__(nn.Identity())

    def predict(self, x):
        """Return the input as image."""
        return {"image": x}


def test_large_images_are_tiled_and_counted():
    """With `whole`, an image with more pixels is restored in tiles, also if it fits into the memory; scored tests are not."""
    seen = []
    restorer = Restorer(Same(), Settings(tile=64, overlap=16, whole=100 * 100), progress=lambda *tiles: seen.append(tiles))
    x = torch.rand(1, 3, 101, 100)
    assert torch.allclose(restorer(x), x, atol=1e-6) and seen == [(number, 4) for number in range(1, 5)] and restorer.tiled == [64]
    assert torch.equal(restorer(x, may_tile=False), x) and torch.equal(restorer(x[:, :, 1:]), x[:, :, 1:]) and len(restorer.tiled) == 1


def test_a_folder_counts_tiles(run, network_file, monkeypatch):
    """The tiles of a large image arrive in the progress of its folder."""
    save(Path("photos/large.png"), photo(200, 200, 1))
    seen, tiles = [], Progress.tiles
    monkeypatch.setattr(Progress, "tiles", lambda self, *counts: (seen.append((self.what, self.count, *counts)), tiles(self, *counts)))
    assert run(*FLAGS, "--whole", "0.03", "--tile", "128", "--tile_overlap", "32", "--no-report")[0] == 0
    assert [each for each in seen if each[3] > 1] == [("restore photos", 4, number, 4) for number in range(1, 5)]
