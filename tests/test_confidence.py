"""The confidence of the streaks of a map: rain is kept, coloured lines and edges are left out, and 0 changes nothing."""
from argparse import Namespace

import numpy as np
import pytest
import torch

from data import image
from model.rain2avoid import confidence, ldgp, learning
from model.rain2avoid.picture import MAP
from tests.conftest import save
from tests.test_ldgp import lined, streaked
from tests.test_rain2avoid import TINY, results

BEHIND = np.array([60, 100, 60])          # the colour behind the streaks


def drawn(columns: slice, colour: list[int], right: list[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return an image with a vertical stripe of a colour, on its right side of another colour, and the map with only that stripe."""
    rgb = np.tile(BEHIND, (60, 80, 1)).astype(np.uint8)
    if right:
        rgb[:, columns.stop:] = right
    rgb[10:50, columns] = colour
    prior = np.zeros((60, 80), np.uint8)
    prior[10:50, columns] = 255
    return rgb, prior


@pytest.mark.parametrize("colour, right, against", [
    ([110, 150, 110], None, 0),                                   # rain that adds the same to all channels
    ([120, 140, 120], None, 0),                                   # rain that covers: the colour behind becomes weaker
    ([60, 190, 60], None, 40),                                    # a line of a stronger colour: (-30, 60, -30) beside the mean of 30
    ([110, 150, 110], [160, 200, 160], 10)])                      # the bright side of an edge: 100 levels from side to side
def test_what_speaks_against_rain(colour, right, against):
    """The levels are those of a computation by hand, and the confidence is 1 / (1 + 2 * levels / 10), as there is one streak."""
    rgb, prior = drawn(slice(40, 42), colour, right)
    expected = 1 / (1 + 2 * against / 10)
    assert np.array_equal(confidence.confident(rgb, prior, 0, expected - 1e-4), prior)
    if against:
        assert not confidence.confident(rgb, prior, 0, expected + 1e-4).any()


@pytest.mark.parametrize("degrees", [-40, 0, 25])
def test_sides_are_across_the_streaks(degrees):
    """A ramp along the streaks makes no difference between their sides, one across them makes 6 pixels times its slope."""
    y, x = np.mgrid[:120, :120]
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    for along, expected in ((True, 0), (False, 12)):
        ramp = 20 + 2 * (cosine * (y - x.min()) - sine * x if along else cosine * x + sine * y)
        rgb = np.repeat(np.clip(ramp, 0, 255).astype(np.uint8)[..., None], 3, 2)
        inside = (np.abs(y - 50) < 8) & (np.abs(x - 50) < 8)
        assert abs(np.abs(confidence._sides(rgb, inside, degrees)).mean() - expected) < 2


def test_each_streak_is_judged():
    """Of two streaks only the coloured one is left out; the doubt about it also weakens the other."""
    rgb, prior = drawn(slice(40, 42), [110, 150, 110])
    rgb[10:50, 60:62], prior[10:50, 60:62] = [60, 190, 60], 255
    kept = confidence.confident(rgb, prior, 0, 0.3)               # the mean of 0 and 40 levels leaves 1/3 for the other
    assert np.array_equal(kept > 0, (prior > 0) & (np.arange(80) < 50))
    assert not confidence.confident(rgb, prior, 0, 0.35).any()


@pytest.mark.parametrize("degrees", [-40, 0, 20])
def test_rain_is_kept(degrees):
    picture = streaked(240, 240, degrees)
    found = ldgp.prior(picture, confidence=0.5)
    assert (found > 10)[lined(240, 240, degrees) > 0.7].mean() > 0.9


@pytest.mark.parametrize("size", [(1, 1), (7, 200), (163, 97)])
@pytest.mark.parametrize("colours", [(3,), ()])
def test_zero_changes_nothing(size, colours):
    """With 0 the map is that of the paper; above 0 streaks are only left out; a map without streaks stays empty."""
    picture = np.random.default_rng(0).integers(0, 256, size + colours, dtype=np.uint8)
    assert np.array_equal(ldgp.prior(picture, confidence=0.0), ldgp.prior(picture))
    some, every = ldgp.prior(picture, confidence=0.5), ldgp.prior(picture)
    assert ((some == every) | (some == 0)).all()
    assert ldgp.prior(np.full((*size, *colours), 9, np.uint8), confidence=1.0).max() == 0


def coloured(height: int, width: int) -> np.ndarray:
    """Return a picture with lines of a strong colour."""
    lines = lined(height, width, 0)[..., None]
    return (np.array([60, 100, 60]) * (1 - lines) + np.array([20, 230, 20]) * lines).astype(np.uint8)


def test_the_flag(run, place):
    """--map_confidence reaches the map of the step ldgp and of an applied network; an existing map is used as it is."""
    save(place / "photos/a.png", coloured(96, 90))
    flags = [*TINY, "--data_train", "Folder", "--dir_demo", "photos", "--save", "x"]
    for limit, found in (("0", True), ("0.5", False)):
        assert run(*flags, "--steps", "ldgp", "--map_confidence", limit)[0] == 0
        assert image.read(place / "dataset/photos" / MAP / "a.png").any() == found
    assert run(*flags, "--steps", "ldgp", "--map_confidence", "0")[0] == 0
    assert run(*flags, "--steps", "nss")[0] == 0
    assert image.read(place / "dataset/photos" / MAP / "a.png").any() and results("sdr(fuse)")
    x = image.to_tensor(coloured(96, 90))[None]
    args = Namespace(ldgp_patch=80, kernel_size=10, sdr_num=2, threshold=10, K=7, pow=0.5, nss_sampling="seeded", seed=1, k=3,
                     keep_clean=True, blend=1.0)
    for limit in (0.0, 0.5):
        args.map_confidence = limit
        assert bool((learning.applied(args, x, torch.zeros_like(x)) == x).all()) == (limit > 0)
