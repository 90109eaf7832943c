"""Weather that is drawn for crops: what it looks like in numbers, and that it depends only on what the docs name."""
import numpy as np
import pytest

from contract import Item
from data import loader, source, transform, weather
from data.source import View
from tests.conftest import photo, save

STRENGTHS = (0.5, 1.5)


def drawn(kind: str, clean: np.ndarray, count: int, strength: float = 1.0, **more) -> list[np.ndarray]:
    return [weather.KINDS[kind](clean, strength, np.random.default_rng((7, number)), **more)["input"] for number in range(count)]


def flat(height: int, width: int, level: int = 0) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def sizes_of(shape: tuple[int, int], kind: str, count: int) -> tuple[float, float]:
    """Return the mean added level, and how much neighbours differ relative to it: both depend on the sizes of drops, not on the area."""
    added = [each[..., 1].astype(float) for each in drawn(kind, flat(*shape), count)]
    level = np.mean([each.mean() for each in added])
    return level, np.mean([np.abs(np.diff(each, axis=1)).mean() for each in added]) / level


@pytest.mark.parametrize("kind", weather.KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2), (7, 400), (64, 64)])
def test_any_size(kind, shape):
    clean = photo(*shape, 1)
    before = clean.copy()
    for number in range(8):
        found = weather.KINDS[kind](clean, 5.0, np.random.default_rng(number))
        assert set(found) == ({"input", "mask"} if kind == "snow" else {"input"})
        assert all(each.dtype == np.uint8 and each.shape == (*shape, 3) for each in found.values())
    assert np.array_equal(clean, before)


@pytest.mark.parametrize("kind", weather.KINDS)
def test_strength(kind):
    """Strength 0 changes nothing; more strength changes more; every seed gives another image, and the same seed the same one."""
    clean = photo(64, 64, 3)
    assert all(np.array_equal(each, clean) for each in drawn(kind, clean, 5, 0.0))
    error = [np.mean([(each.astype(float) - clean) ** 2 for each in drawn(kind, clean, 40, strength)]) for strength in (0.3, 1, 3)]
    assert error[0] * 1.5 < error[1] and error[1] * 1.5 < error[2]
    images = drawn(kind, clean, 20)
    assert len({each.tobytes() for each in images}) == 20
    assert all(np.array_equal(one, other) for one, other in zip(images, drawn(kind, clean, 20)))


@pytest.mark.parametrize("kind, low, high", [("rain", 12, 34), ("snow", 12, 40), ("haze", 9, 35)])
def test_levels_are_those_of_usual_sets(kind, low, high):
    """Most PSNRs of drawn inputs lie where those of the usual sets lie, and they are spread."""
    clean = photo(96, 96, 5)
    errors = [np.mean((each.astype(float) - clean) ** 2) for each in drawn(kind, clean, 60)]
    found = np.sort(10 * np.log10(255**2 / np.maximum(errors, 1e-3)))
    assert low < found[3] and found[-4] < high + 10 and found[-4] - found[3] > 6


@pytest.mark.parametrize("kind", ["rain", "snow"])
def test_a_crop_has_drops_of_the_size_that_a_photo_has(kind):
    """The same density and the same sizes on 64 x 64 and on 192 x 256, and as many drops at the border as in the middle."""
    (level, change), (whole_level, whole_change) = sizes_of((64, 64), kind, 300), sizes_of((192, 256), kind, 80)
    assert level == pytest.approx(whole_level, rel=0.15) and change == pytest.approx(whole_change, rel=0.15)
    mean = np.mean(drawn(kind, flat(64, 64), 1500), axis=(0, 3))
    middle = mean[24:40, 24:40].mean()
    assert all(edge.mean() == pytest.approx(middle, rel=0.1) for edge in (mean[:3], mean[-3:], mean[:, :3], mean[:, -3:]))


def test_rain_covers_or_is_added():
    """Before white, one half of the draws shows nothing, because light is added there; the other half covers it."""
    unchanged = [bool((each == 255).all()) for each in drawn("rain", flat(64, 64, 255), 200)]
    assert 70 < sum(unchanged) < 130


def test_rain_has_many_directions_and_streaks():
    """The streaks are longer than wide, and their main directions are spread to both sides of the vertical."""
    tilts = []
    for each in drawn("rain", flat(96, 96), 40):
        down, right = np.gradient(each[..., 1].astype(float))
        xx, yy, xy = (right**2).mean(), (down**2).mean(), (right * down).mean()
        tilts.append(np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)))      # direction of the gradients: across the streaks
        assert xx > 1.2 * yy or abs(tilts[-1]) > 15
    assert min(tilts) < -12 and max(tilts) > 12 and np.abs(tilts).max() < 50


def test_the_snow_mask_fits():
    """Where nothing changed the mask is 0, where it is 0 only the thin veil is added, and where it is bright the image is."""
    for number in range(30):
        for level in (0, 100):
            clean = flat(64, 64, level)
            found = weather.snow(clean, 1.0, np.random.default_rng(number))
            change, mask = np.abs(found["input"].astype(int) - clean).max(2), found["mask"].max(2)
            assert level or mask[change == 0].max(initial=0) == 0
            assert change[mask == 0].max(initial=0) <= 0.06 * 0.85 * 255 + 1
            assert level or np.all(found["input"].max(2) >= mask)
    assert np.mean([weather.snow(clean, 1.0, np.random.default_rng(number))["mask"].any() for number in range(30)]) == 1


def test_haze_on_a_crop_is_a_part_of_a_hazy_photo():
    """In landscapes a crop from the top is hazier than one from the bottom, and the haze changes less within it than within the photo."""
    heights = weather.heights(320, 64)
    top, bottom = (np.array(drawn("haze", flat(64, 64), 100, height=heights[rows])) for rows in (slice(0, 64), slice(256, 320)))
    far = (top != bottom).any((1, 2, 3))
    whole = np.array(drawn("haze", flat(320, 64), 100))
    assert 35 < far.sum() < 65                                          # the other half of the draws does not depend on the height
    assert top[far].mean() > bottom[far].mean() + 30
    assert np.all(top[far].mean((1, 2, 3)) > bottom[far].mean((1, 2, 3)))
    change = [np.mean(np.ptp(each[far].mean((2, 3)), axis=1)) for each in (top, whole)]
    assert change[0] < 0.6 * change[1]


def test_haze_of_rooms_follows_the_photo():
    """A bright half makes the haze of rooms before the dark half denser or thinner; that of landscapes depends on the height alone."""
    dark, height = flat(64, 64, 20), np.zeros((64, 64, 1))
    half = dark.copy()
    half[:, 32:] = 90
    hazy, beside, above = (np.array(drawn("haze", each, 100, height=high), float)[:, :, :20] for each, high in
                           ((dark, height), (half, height), (dark, height + 1)))
    far, change = (hazy != above).any((1, 2, 3)), (beside - hazy).mean((1, 2, 3))
    assert np.all(change[far] == 0)
    assert change[~far].min() < -4 and change[~far].max() > 4


def test_the_height_follows_the_photo_through_crop_and_turns(monkeypatch):
    """The haze of a crop knows where each of its pixels was in the photo, also after flips and rotations."""
    rows = np.broadcast_to(np.arange(0, 200, dtype=np.uint8)[:, None, None], (200, 150, 3))
    seen = []
    monkeypatch.setitem(weather.KINDS, "haze", lambda clean, strength, rng, height: seen.append((clean, height)) or {"input": clean})
    item = Item("rows", {"input": View(rows, "drawn haze", STRENGTHS), "image": rows})
    images = loader.Images([item], ("image",), patch_size=32, turns="all")
    for position in range(20):
        images[(1, position, 0)]
    assert all(np.allclose(height[..., 0], 1 - clean[..., 0] / 199) for clean, height in seen)
    assert {bool(np.ptp(clean[0])) for clean, _ in seen} == {True, False}           # turned and not turned


def test_a_sample_depends_only_on_seed_epoch_and_position(tmp_path):
    path = save(tmp_path / "a.png", photo(90, 90, 1))
    for how in ("rain", "snow", "haze", "any"):
        def sample(epoch, position, seed=1, how=how):
            item = Item("a", {"input": View(path, f"drawn {how}", STRENGTHS), "image": path})
            return loader.Images([item], ("image",), seed=seed, patch_size=64, turns="all")[(epoch, position, 0)]
        first = sample(3, 5)
        assert first.input.min() >= 0 and first.input.max() <= 1 and first.input.shape == (3, 64, 64)
        assert first.input.equal(sample(3, 5).input) and first.targets["image"].equal(sample(3, 5).targets["image"])
        assert not any(first.input.equal(other.input) for other in (sample(3, 6), sample(4, 5), sample(3, 5, 2)))


def test_noise_is_drawn_as_before():
    """`NAME@0-55` draws crop, turn, level and noise in this order from one generator, as in earlier versions."""
    clean = photo(80, 70, 2)
    item = Item("a", {"input": View(clean, "drawn noise", (0, 55)), "image": clean})
    sample = loader.Images([item], ("image",), seed=4, patch_size=32, turns="all")[(2, 9, 0)]
    rng = np.random.default_rng((4, 2, 9))
    crop = transform.augment({"image": clean}, 32, "all", rng)["image"]
    expected = np.clip(crop + rng.normal(0, int(rng.integers(0, 55, endpoint=True)), crop.shape), 0, 255).astype(np.uint8)
    assert np.array_equal(np.rint(sample.input.numpy().transpose(1, 2, 0) * 255), expected)


def test_any_draws_every_kind_and_level(monkeypatch):
    """'any' draws noise of every level and each weather, about equally often, with strengths from its range."""
    drawn = []
    monkeypatch.setattr(source, "degrade", lambda kind, pixels, amount, rng, height: drawn.append((kind, amount)) or {"input": pixels})
    clean = photo(20, 20, 1)
    images = loader.Images([Item("a", {"input": View(clean, "drawn any", (0.5, 2.0)), "image": clean})], ("image",), patch_size=16)
    for position in range(400):
        images[(1, position, 0)]
    amounts = {kind: [amount for each, amount in drawn if each == kind] for kind in ("noise", *weather.KINDS)}
    assert sum(map(len, amounts.values())) == 400 and min(map(len, amounts.values())) > 70
    noise = amounts.pop("noise")
    assert min(noise) < 5 and max(noise) > 50 and all(isinstance(level, int) for level in noise)
    assert all(0.5 <= min(each) < 0.6 and 1.9 < max(each) <= 2 for each in amounts.values())
