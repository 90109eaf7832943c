"""Stochastic sampling: published references, comparison with a slow version, probabilities, images of unusual sizes."""
import numpy as np
import pytest
import torch
from PIL import Image

from model.rain2avoid import nss
from tests.conftest import photo


def rainy(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return an image and a map of rain in lines and single pixels, with some pixels that are neither rain nor clean."""
    rng = np.random.default_rng(seed)
    rgb = np.clip(photo(height, width, seed) + rng.integers(-20, 20, (height, width, 3)), 0, 255).astype(np.uint8)
    prior = np.where(rng.random((height, width)) < 0.3, 200, 0).astype(np.uint8)
    prior[:, width // 2:width // 2 + 5] = 255
    prior[rng.random((height, width)) < 0.05] = 7
    return rgb, prior


def drawn(rgb: np.ndarray, prior: np.ndarray, **options) -> nss.Drawn:
    return nss.draw(torch.from_numpy(rgb), torch.from_numpy(prior), **options)


def by_hand(rgb: np.ndarray, prior: np.ndarray, row: int, column: int, window: int = 7, least: int = 3) -> dict[tuple[int, int], float]:
    """Return the candidates of a pixel and their probabilities, computed in loops as the paper describes them."""
    height, width = prior.shape
    clean = prior == 0
    reach = window // 2

    def inside(y: int, x: int) -> bool:
        return 0 <= y < height and 0 <= x < width

    def colour(y: int, x: int) -> np.ndarray:
        return rgb[y, x].astype(int) if inside(y, x) else np.zeros(3, int)
    candidates = [(y, x) for y in range(row - reach, row + reach + 1) for x in range(column - reach, column + reach + 1)
                  if inside(y, x) and clean[y, x]]
    if not candidates:
        return {}
    half = next(half for half in range(least // 2, reach + 1)
                if any(max(abs(y - row), abs(x - column)) <= half for y, x in candidates))
    weights = {}
    for y, x in candidates:
        distance = 0
        for down in range(-half, half + 1):
            for across in range(-half, half + 1):
                here = row + down, column + across
                if not inside(*here) or clean[here]:
                    distance += np.abs(colour(*here) - colour(y + down, x + across)).sum()
        weights[y, x] = 1 / max(distance ** 0.5, 1e-4)
    total = sum(weights.values())
    return {place: weight / total for place, weight in weights.items()}


@pytest.mark.parametrize("number", ["7", "33"])
def test_published_references(parity, number):
    """Every pixel of the references and of their mean equals the released program's."""
    folder = parity / "r2a_nss" / number
    rgb, prior = (np.array(Image.open(folder / f"{name}.png")) for name in ("input", "ldgp"))
    found = drawn(rgb, prior, sampling="released")
    for name, ours in (("sdr_0", found.reference(0)), ("sdr_1", found.reference(1)), ("sdr_49", found.reference(49)),
                       ("fused", found.fused())):
        assert np.array_equal(ours.numpy(), np.array(Image.open(folder / f"{name}.png"))), name


@pytest.mark.parametrize("size", [(23, 19), (9, 40)])
def test_against_hand_work(size):
    """The replaced pixels and the probabilities of their candidates equal those of the slow version."""
    rgb, prior = rainy(*size)
    weighed = nss.weigh(torch.from_numpy(rgb), torch.from_numpy(prior))
    chances = torch.diff(weighed.cumulated.double(), dim=1, prepend=torch.zeros(len(weighed.positions), 1)).numpy()
    chances /= chances.sum(1, keepdims=True)
    places = dict(zip(weighed.positions.tolist(), chances))
    for row, column in np.argwhere(prior > 10):
        expected = by_hand(rgb, prior, row, column)
        position = row * size[1] + column
        assert (position in places) == bool(expected)
        if expected:
            found = {(position + step) // size[1] * 1000 + (position + step) % size[1]: chance
                     for step, chance in zip(weighed.steps.tolist(), places[position]) if chance > 1e-9}
            assert found == pytest.approx({y * 1000 + x: chance for (y, x), chance in expected.items()}, rel=1e-3, abs=1e-6)


def test_colours_come_as_often_as_their_chances_say():
    rgb, prior = rainy(12, 12, 3)
    row, column = np.argwhere(prior > 10)[20]
    expected = by_hand(rgb, prior, row, column)
    references = drawn(rgb, prior, count=4000)
    place = references.positions.tolist().index(row * 12 + column)
    ways = references.steps[references.choices[:, place].int()] + references.positions[place]
    for (y, x), chance in expected.items():
        share = (ways == y * 12 + x).float().mean().item()
        assert abs(share - chance) < 5 * (chance * (1 - chance) / 4000) ** 0.5 + 1e-3


def test_pixels_and_references_are_drawn_for_themselves():
    """Each pixel has its own random number, unlike the released program, which uses one number for all pixels of a reference."""
    flat = np.full((40, 40, 3), 90, np.uint8)
    flat += np.random.default_rng(0).integers(0, 9, flat.shape, dtype=np.uint8)
    prior = np.zeros((40, 40), np.uint8)
    prior[::4, ::4] = 255
    references = drawn(flat, prior)
    assert all(len(torch.unique(row)) > 20 for row in references.choices)
    assert not torch.equal(references.reference(0), references.reference(1))
    assert not torch.equal(drawn(flat, prior, seed=5).choices, references.choices)
    assert torch.equal(drawn(flat, prior).choices, references.choices)


def test_strips_change_nothing(monkeypatch):
    rgb, prior = rainy(90, 31)
    whole = drawn(rgb, prior)
    fused = whole.fused()
    monkeypatch.setattr(nss, "STRIP", 31 * 20)
    monkeypatch.setattr(nss, "CHUNK", 7)
    parts = drawn(rgb, prior)
    assert torch.equal(parts.positions, whole.positions) and torch.equal(parts.choices, whole.choices)
    assert torch.equal(parts.fused(), fused)


def test_the_mean_of_references():
    """fused() is the rounded mean, colours() the unrounded mean of some references; other pixels than rain do not change."""
    rgb, prior = rainy(30, 33)
    references = drawn(rgb, prior, count=9)
    all_of_them = torch.stack([references.reference(number) for number in range(9)]).double()
    assert torch.equal(references.fused(), all_of_them.mean(0).round().byte())
    some, numbers = torch.tensor([0, 5, 17]), torch.tensor([2, 7])
    expected = all_of_them[numbers].mean(0).view(-1, 3)[references.positions[some]]
    assert torch.allclose(references.colours(numbers, some).double(), expected, atol=1e-4)
    assert (references.fused().numpy() == rgb)[prior <= 10].all()


def test_drawing_without_end_has_the_same_mean():
    rgb, prior = rainy(24, 24, 1)
    weighed = nss.weigh(torch.from_numpy(rgb), torch.from_numpy(prior))
    everywhere = torch.arange(len(weighed.positions))
    endless = weighed.colours(3000, everywhere, torch.Generator().manual_seed(1))
    references = drawn(rgb, prior, count=3000)
    assert (endless - references.colours(torch.arange(3000), everywhere)).abs().mean() < 0.6


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (5, 6), (16, 300)])
@pytest.mark.parametrize("level", [0, 7, 255])
def test_odd_pictures(size, level):
    """No pixel changes if there is no rain, or no clean pixel."""
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    references = drawn(rgb, np.full(size, level, np.uint8), count=3)
    assert len(references.positions) == 0
    assert np.array_equal(references.fused().numpy(), rgb) and np.array_equal(references.reference(2).numpy(), rgb)


def test_other_windows():
    rgb, prior = rainy(20, 20)
    assert drawn(rgb, prior, window=11, least=5, threshold=199).steps.shape == (120,)
    for options in (dict(window=8), dict(window=17), dict(least=9), dict(least=4)):
        with pytest.raises(ValueError, match="odd numbers from 3 to 15"):
            drawn(rgb, prior, **options)
