"""Data: pairing, hold-out, draws, crops, the cache."""
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import option
from contract import Sample, collate
from data import cache, degrade, demo, image, loader, paired, source, transform
from data.choose import choose, names
from runtime import files, process
from runtime.errors import UserError
from runtime.files import natural
from tests.conftest import REPO, make_div2k, make_pairs, photo, python, save, veiled


def items(root: Path, split: str = "train"):
    return paired.find(root, split)[0]


def test_pairs_by_stem_whatever_the_format(tmp_path):
    found = items(make_div2k(tmp_path / "DIV2K", 6, "X1"))
    assert [item.name for item in found] == [f"{n:04}" for n in range(6)]
    assert {item.images["input"].suffix for item in found} == {".png", ".jpg", ".tif", ".bmp", ".webp"}
    assert all({"input", "image", "mask"} == set(item.images) for item in found)


def test_masks_are_optional(tmp_path):
    root = make_pairs(tmp_path / "set", masks=True)
    (root / "mask" / "01.png").unlink()
    assert ["mask" in item.images for item in items(root)] == [True, False, True, True]


def test_own_train_and_test_parts(tmp_path):
    make_pairs(tmp_path / "set" / "train", 3)
    make_pairs(tmp_path / "set" / "test", 2)
    assert len(items(tmp_path / "set", "train")) == 3
    assert len(items(tmp_path / "set", "test")) == 2


def test_inputs_without_partner_are_named(tmp_path):
    root = make_pairs(tmp_path / "set")
    (root / "target" / "02.png").unlink()
    with pytest.raises(UserError, match=r"1 of 4 images in .*input have no partner .*: 02\.png"):
        items(root)


@pytest.mark.parametrize("damage, words", [
    (lambda root: [p.unlink() for p in (root / "input").iterdir()], "holds no image"),
    (lambda root: os.rename(root / "target", root / "truth"), "no folder .*target"),
    (lambda root: save(root / "input" / "01.jpg", photo(8, 8, 0)), r"01\.jpg and 01\.png"),
])
def test_broken_folders(tmp_path, damage, words):
    root = make_pairs(tmp_path / "set")
    damage(root)
    with pytest.raises(UserError, match=words):
        items(root)


def test_other_files_are_left_alone(tmp_path):
    root = make_pairs(tmp_path / "set")
    for name in ("Thumbs.db", ".hidden.png", "notes.txt"):
        (root / "input" / name).write_bytes(b"x")
    assert len(items(root)) == 4


def test_sizes_must_agree(tmp_path):
    root = make_pairs(tmp_path / "set")
    save(root / "target" / "03.png", photo(40, 50, 3))
    with pytest.raises(UserError, match=r"03\.png is 48x40, .*03\.png is 50x40"):
        source.check_sizes(items(root))


def chosen(*flags: str, role: str) -> list[str]:
    args = option.parse(["--data_train", "set", "--ext", "img", *flags])
    return [item.name for item in choose(args, "set", role).items]


def test_hold_out(place):
    make_pairs(place / "dataset" / "set", 12)
    assert chosen(role="train") == [f"{n:02}" for n in range(11)]
    assert chosen(role="test") == ["11"]
    assert chosen("--test_only", "--data_test", "set", role="test") == ["11"]
    assert len(chosen("--data_train", "Demo", "--data_test", "set", role="test")) == 12


def test_data_range(place):
    make_pairs(place / "dataset" / "set", 12)
    assert chosen("--data_range", "1-3/5-6", role="train") == ["00", "01", "02"]
    assert chosen("--data_range", "1-3/5-6", role="test") == ["04", "05"]
    assert chosen("--data_range", "2-11", role="test") == ["00", "11"]              # the images that training does not use
    assert chosen("--data_range", "3-2000", "--test_only", role="test") == [f"{n:02}" for n in range(2, 12)]
    with pytest.raises(UserError, match="starts at image 13, but set has 12"):
        chosen("--data_range", "13-14", role="train")
    with pytest.raises(UserError, match="leaves no image of set to test on"):
        chosen("--data_range", "1-12", role="test")


def test_a_training_range_leaves_other_test_sets_whole(place):
    """A range that is larger than a test set that training does not use."""
    make_pairs(place / "dataset" / "set", 12)
    make_pairs(place / "dataset" / "other", 2)
    args = option.parse(["--data_train", "set", "--data_test", "other", "--data_range", "4-12"])
    assert [item.name for item in choose(args, "other", "test").items] == ["00", "01"]


def test_positions_count_in_natural_order(place):
    """Images with the names 1 to 101 are sorted by number; the default hold-out is the last ten of them."""
    for folder in ("input", "target"):
        for number in range(1, 102):
            save(place / "dataset" / "set" / folder / f"{number}.png", photo(4, 4, 0))
    assert chosen("--data_range", "61-64", "--test_only", role="test") == ["61", "62", "63", "64"]
    assert chosen(role="test") == [str(number) for number in range(92, 102)]


@pytest.mark.parametrize("names", [
    "1 2 10 11 100", "rain-2 rain-10", "a1b2 a1b10 a2b1", "x-1.png x.png x1.png x2.png x10.png",
    "01 1 02 2 010 10", "B10 a2 a10", "1 1² 2 10 ² ٣", f"2 {'9' * 5000} a", "1.png 1_2.png 1_10.png 2.png"])
def test_natural_order(names):
    expected = names.split()
    for shuffled in (expected[::-1], sorted(expected), expected[1:] + expected[:1]):
        assert sorted(shuffled, key=natural) == expected
    assert sorted(map(Path, expected[::-1]), key=natural) == [Path(name) for name in expected]


def test_natural_order_keeps_that_of_names_of_one_length():
    names = [f"{before}{number:04}{after}.png" for before in ("", "im", "im_", "im-", "Im ") for number in range(0, 2000, 97)
             for after in ("", "-1", "_s", " b")]
    assert sorted(names, key=natural) == sorted(names)


def test_joined_names():
    assert names("A+B") == ["A", "B"]
    with pytest.raises(UserError, match="names no data set"):
        names("+")


def test_demo_scenes_and_strength():
    """Scenes differ between training and test; every held-out input is degraded to 17-24 dB."""
    assert not set(demo.photos("train")) & set(demo.photos("test"))
    found = demo.everything(Path(), "test")
    assert len({item.name for item in found}) == len(found) == 16
    assert {item.kind for item in found} == {0, 1, 2, 3}
    for item in found:
        error = np.mean((item.images["input"] / 255 - item.images["image"] / 255) ** 2)
        assert 17 < -10 * np.log10(error) < 24, item.name


def test_synthesis_is_seeded():
    clean = photo(60, 70, 1) / 255
    for name in demo.WEATHERS:
        once, twice, other = (np.asarray(getattr(degrade, name)(clean, np.random.default_rng(seed))) for seed in (1, 1, 2))
        assert np.array_equal(once, twice) and not np.array_equal(once, other)
        assert once.min() >= 0 and once.max() <= 1


def test_snow_mask_is_the_snow():
    """Where the mask is black, only a veil changes the photo; where it is bright, the photo nearly equals the mask."""
    clean = np.zeros((200, 200, 3)) + 0.2
    snowy, mask = degrade.snow(clean, np.random.default_rng(0))
    assert np.abs(snowy - clean)[mask < 0.01].max() < 0.1
    assert snowy[mask > 0.8].mean() > 0.8
    assert 0.02 < (mask.mean(-1) > 0.3).mean() < 0.3


def drawn(rank: int = 0, world: int = 1, epoch: int = 1) -> list[list]:
    draws = loader.Draws([list(range(5))], batch_size=4, steps=3, seed=1, rank=rank, world=world)
    draws.epoch = epoch
    return list(draws)


def test_draws():
    whole = drawn()
    assert drawn() == whole != drawn(epoch=2)
    assert sorted(index for batch in whole for _, _, index in batch)[:2] == [0, 0]
    assert {index for batch in whole for _, _, index in batch[:5]} == set(range(5))
    first, second = drawn(0, 2), drawn(1, 2)
    assert [sorted(a + b) for a, b in zip(first, second)] == [sorted(batch) for batch in whole]


def batches(root: Path, workers: int, **options) -> list[torch.Tensor]:
    dataset = loader.Images(items(root), ("image",), seed=3, patch_size=16, turns="all", **options)
    batch_loader = loader.train_loader(dataset, loader.Draws([list(range(4))], 2, 4, seed=3), workers, pin=False)
    return [torch.cat((batch.input, batch.targets["image"])) for batch in batch_loader]


def test_workers_change_nothing(tmp_path):
    root = make_pairs(tmp_path / "set")
    for one, other in zip(batches(root, 0), batches(root, 2)):
        assert torch.equal(one, other)


def test_one_window_for_all_images():
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
    for seed in range(20):
        cut = transform.augment({"input": whole, "image": whole.copy()}, 12, "all", np.random.default_rng(seed))
        assert cut["input"].shape == (12, 12, 3)
        assert np.array_equal(cut["input"], cut["image"])


def test_small_images_are_reflected():
    small = photo(5, 70, 0)
    cut = transform.augment({"input": small}, 16, "", np.random.default_rng(0))["input"]
    assert cut.shape == (16, 16, 3)
    assert np.array_equal(cut[5], cut[3])


def test_batch():
    batch = collate([Sample(str(n), torch.full((3, 2, 2), n), {"image": torch.zeros(3, 2, 2)}, n) for n in range(5)])
    assert [part.name for part in batch.chunks(2)] == [["0", "1"], ["2", "3", "4"]]
    assert [len(part) for part in batch.chunks(9)] == [1] * 5
    assert batch.kind.tolist() == [0, 1, 2, 3, 4]


def test_cache(tmp_path, monkeypatch):
    root = make_pairs(tmp_path / "set")
    sources = sorted((root / "input").iterdir())
    decoded = []
    real_read = image.read
    monkeypatch.setattr(image, "read", lambda path: decoded.append(path) or real_read(path))

    places = cache.fill(tmp_path / "bin", tmp_path, sources)
    assert sorted(map(Path, decoded)) == sources
    assert all(np.array_equal(cache.read(places[str(s)], s), real_read(s)) for s in sources)

    cache.fill(tmp_path / "bin", tmp_path, sources)
    assert len(decoded) == 4                                       # no file is decoded again

    old = sources[1].stat()
    save(sources[1], veiled(photo(40, 48, 9)))                      # a change is detected even if size and modification time are equal
    os.utime(sources[1], ns=(old.st_atime_ns, old.st_mtime_ns))
    places = cache.fill(tmp_path / "bin", tmp_path, sources)
    assert len(decoded) == 5
    assert np.array_equal(cache.read(places[str(sources[1])], sources[1]), real_read(sources[1]))
    assert len(list((tmp_path / "bin").rglob("*.npy"))) == 4        # the outdated file is deleted, and no partial file remains


def test_two_that_fill_one_cache(tmp_path):
    """The second process waits for the first and reports which process it waits for."""
    root, folder = make_pairs(tmp_path / "set"), files.make_folder(tmp_path / "bin")
    code = ("import pathlib, sys, time; from runtime import files; lock = pathlib.Path(sys.argv[1])\n"
            "with files.locked(lock, print): print('held', flush=True); sys.stdin.read(); time.sleep(0.5); lock.with_name('end').touch()")
    first = subprocess.Popen(python("-c", code, str(folder / "lock")), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             env={**os.environ, "PYTHONPATH": str(REPO)})
    assert first.stdout.readline() == b"held\n"
    said = []

    def busy(holder: str) -> None:
        said.append(holder)
        first.stdin.close()                                        # the first process ends half a second later
    places = cache.fill(folder, tmp_path, sorted((root / "input").iterdir()), busy)
    assert (folder / "end").is_file() and first.wait() == 0
    assert len(said) == 1 and f"process {first.pid} on " in said[0]
    assert all(Path(path).is_file() for path in places.values())


def test_cache_is_whole_or_absent(tmp_path, monkeypatch):
    root = make_pairs(tmp_path / "set", 1)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="No space left on device"):
        cache.fill(tmp_path / "bin", tmp_path, [root / "input" / "00.png"])
    assert not list((tmp_path / "bin").rglob("*.*"))


def test_read_only_data_is_decoded_each_time(place, monkeypatch):
    make_pairs(place / "dataset" / "set")

    def fail(*_):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr(cache, "fill", fail)
    from data import runs
    job = runs(option.parse(["--data_train", "set", "--n_threads", "0"]))[0]
    assert "--ext img" in process.log().waiting[-1]
    assert [item.name for item in job.test["set"].items] == ["03"]
