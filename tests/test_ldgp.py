"""The rain prior: equal to published maps, steps compared with slow loops, images of unusual sizes."""
from statistics import median
from time import process_time

import numpy as np
import pytest
from PIL import Image

from model.rain2avoid import hog, ldgp, rotate
from tests.conftest import photo


def across(height: int, width: int, degrees: float) -> np.ndarray:
    """Return the distance in pixels, (H, W), from a line through the middle, `degrees` from the vertical (positive: leaning right)."""
    y, x = np.mgrid[:height, :width]
    return np.cos(np.radians(degrees)) * (x - width / 2) + np.sin(np.radians(degrees)) * (y - height / 2)


def streaked(height: int, width: int, degrees: float, seed: int = 0) -> np.ndarray:
    """Return a smooth image with thin, soft, bright lines in one direction."""
    lines = lined(height, width, degrees)[..., None]
    return (photo(height, width, seed) * (1 - lines) + 235 * lines).astype(np.uint8)


def lined(height: int, width: int, degrees: float) -> np.ndarray:
    return np.sin(np.pi * across(height, width, degrees) / 12) ** 8


def test_published_maps(real_data):
    folder = real_data / "Rain100L"
    if not (folder / "ldgp").is_dir():
        pytest.skip("Rain100L's published maps are not in UNWEATHER_DATA")
    times = []
    for number in range(1, 51):
        rainy, published = (np.asarray(Image.open(folder / kind / f"{number}.png")) for kind in ("input", "ldgp"))
        start = process_time()
        drawn = ldgp.prior(rainy)
        times.append(process_time() - start)
        assert np.array_equal(drawn, published), number
    assert median(times) < 0.5                                    # seconds of processor time; 0.03 s on one core


@pytest.mark.parametrize("degrees", [-40, -20, 0, 20, 40])
def test_streaks_are_found_in_their_direction(degrees):
    picture = streaked(240, 240, degrees)
    assert abs(ldgp.angle(picture) - degrees) <= 5
    found = ldgp.prior(picture) > 10
    lines = lined(240, 240, degrees)
    assert found[lines > 0.7].mean() > 0.9 and found[lines < 0.1].mean() < 0.1


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (79, 300), (80, 80), (81, 83), (163, 97)])
@pytest.mark.parametrize("colours", [(3,), ()])
def test_any_size(size, colours):
    picture = np.random.default_rng(0).integers(0, 256, size + colours, dtype=np.uint8)
    found = ldgp.prior(picture)
    assert found.shape == size and found.dtype == np.uint8
    if min(size) < 80:
        assert ldgp.angle(picture) == 0 and set(np.unique(found)) <= {0, 255}


def test_grey_equals_its_colours():
    picture = streaked(170, 180, 20)[..., 0]
    assert np.array_equal(ldgp.prior(picture), ldgp.prior(np.stack([picture] * 3, 2)))


def test_a_flat_picture_has_no_rain():
    assert ldgp.prior(np.full((100, 170, 3), 90, np.uint8)).max() == 0


def test_patches_too_small_are_refused():
    with pytest.raises(ValueError, match="block"):
        ldgp.angle(np.zeros((90, 90, 3), np.uint8), 31)
    assert ldgp.prior(streaked(120, 130, 20), patch=45).shape == (120, 130)


def test_strips_change_nothing(monkeypatch):
    picture = streaked(170, 250, -25)
    whole = ldgp.prior(picture)
    monkeypatch.setattr(rotate, "STRIP", 700)
    monkeypatch.setattr(ldgp, "STRIP", 700)
    monkeypatch.setattr(hog, "BATCH", 1)
    assert np.array_equal(ldgp.prior(picture), whole)


def test_threshold_and_opening_against_loops():
    """Compared with loops over pixels: above the rounded mean, then minimum and maximum of the rows y - 5 to y + 4."""
    grey = photo(31, 17, 3)[..., 1].astype(int)
    grey += np.random.default_rng(1).integers(-25, 25, grey.shape)
    bright = np.zeros(grey.shape, int)
    for y, x in np.ndindex(grey.shape):
        around = [grey[min(max(y + i, 0), 30), min(max(x + j, 0), 16)] for i in range(-2, 3) for j in range(-2, 3)]
        bright[y, x] = 255 * (grey[y, x] > round(sum(around) / 25))
    eroded = np.array([bright[max(y - 5, 0):y + 5].min(0) for y in range(31)])
    opened = np.array([eroded[max(y - 5, 0):y + 5].max(0) for y in range(31)])
    assert opened.max() == 255
    assert np.array_equal(ldgp.streaks(grey.astype(np.uint8), 10), opened)


@pytest.mark.parametrize("degrees", [-85, -30, 0, 15, 45])
def test_turning_against_loops(degrees):
    """A rotated image differs by one or two levels at most from bilinear interpolation in real numbers."""
    picture = photo(23, 34, 5)[..., 0]
    result = rotate.turned(picture, degrees)
    height, width = result.shape
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    for y, x in np.ndindex(result.shape):
        across, down = x - width / 2, y - height / 2
        column, row = cosine * across - sine * down + 17, sine * across + cosine * down + 11.5
        left, top = int(np.floor(column)), int(np.floor(row))
        if 1 <= left < 32 and 1 <= top < 21:
            a, b = column - left, row - top
            square = picture[top:top + 2, left:left + 2].astype(float)
            expected = (1 - b) * ((1 - a) * square[0, 0] + a * square[0, 1]) + b * ((1 - a) * square[1, 0] + a * square[1, 1])
            assert abs(result[y, x] - expected) < 1 + 0.05 * np.ptp(square)
        elif not (-2 <= left <= 34 and -2 <= top <= 23):
            assert result[y, x] == 255


def test_a_part_of_a_turned_picture():
    picture = photo(40, 50, 2)
    whole = rotate.turned(picture, 35)
    assert np.array_equal(rotate.turned(picture, 35, 7, 11, (20, 13)), whole[7:27, 11:24])


def test_direction_of_waves():
    """The direction of brightness that varies along one direction is found."""
    directions = np.array([2, 42, 92, 142])
    waves = [128 + 100 * np.sin(across(80, 80, direction) / 4) for direction in directions]
    assert np.abs(hog.angles(np.rint(waves).astype(np.uint8)) - directions).max() <= 5
