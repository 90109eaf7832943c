"""Folders of images without ground truth: tiles, batches, damaged images, and results of an earlier run."""
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import option
import tester
from data import image
from model import build, weights
from model.dncnn import Deraining
from restore import backend
from restore.restorer import Restorer, Settings
from runtime import files, memory
from tests.conftest import make_pairs, photo, save
from tool import guarded

RESULTS = Path("experiment/test/results-photos")
FLAGS = ("--test_only", "--pre_train", "w.pt", "--data_test", "Demo", "--dir_demo", "photos", "--save_results", "--cpu", "--n_threads", "0")


@pytest.fixture
def network_file(place) -> Path:
    """Write the model file of a small untrained network, and a folder with three photos of two sizes."""
    args = option.parse(["--model", "dncnn", "--channels", "4"])
    torch.manual_seed(0)
    files.write_tensors(Path("w.pt"), weights.model_content(build(args), args, {}))
    for name, size in (("a", (40, 56)), ("b", (40, 56)), ("c", (30, 20))):
        save(Path(f"photos/{name}.png"), photo(*size, ord(name)))
    long_ago("w.pt", "photos/a.png", "photos/b.png", "photos/c.png")
    return Path("w.pt")


def long_ago(*paths: str) -> None:
    for path in paths:
        os.utime(path, (time.time() - 1000,) * 2)


def expected(path: str) -> np.ndarray:
    with torch.inference_mode():
        return image.to_array(weights.load("w.pt").restore(image.to_tensor(image.read(Path(path)))[None])[0])


def no_memory(monkeypatch, limit: int, error: Exception) -> list[int]:
    """Make the network raise `error` for more than `limit` pixels; return the list of pixel counts of its inputs."""
    seen, real = [], Deraining.restore

    def restore(self, x):
        seen.append(x.shape[0] * x.shape[-2] * x.shape[-1])
        if seen[-1] > limit:
            raise error
        return real(self, x)
    monkeypatch.setattr(Deraining, "restore", restore)
    return seen


def made(*flags: str) -> Restorer:
    args = option.parse(["--test_only", "--pre_train", "w.pt", "--cpu", *flags])
    return Restorer(weights.load("w.pt"), Settings.of(args))


def test_results_are_those_of_single_pictures(run, network_file):
    status, text = run(*FLAGS)
    assert status == 0 and "photos: 3 images, restored, no ground truth [single, whole images]" in text, text
    for name in "abc":
        assert np.abs(image.read(RESULTS / f"{name}.png").astype(int) - expected(f"photos/{name}.png")).max() <= 1
    cards = json.loads(Path("experiment/test/cards-photos.json").read_text())["cards"]
    assert [card["name"] for card in cards] == ["a", "b", "c"] and "results-photos/a.png" in Path("experiment/test/report.html").read_text()


@pytest.mark.parametrize("error, told", [(MemoryError("x"), True), (RuntimeError("x"), False),
                                         (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), True)])
def test_full_memory_is_one_sentence(capsys, error, told):
    def run():
        raise error
    if told:
        assert guarded("tool.x", run) == 1 and "the memory is full" in capsys.readouterr().err
    else:
        with pytest.raises(RuntimeError):
            guarded("tool.x", run)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")])
def test_tiles_where_memory_lacks(run, network_file, monkeypatch, error):
    """An image is tried whole, then in tiles, and the log states this once."""
    save(Path("photos/large.png"), photo(150, 200, 1))
    seen = no_memory(monkeypatch, 140 * 140, error)
    status, text = run(*FLAGS, "--tile", "128", "--tile_overlap", "48", "--no-report")
    assert status == 0, text
    assert text.count("the memory is too small") == text.count("levels of 255") == seen.count(150 * 200) == 1
    assert "photos: 4 images, restored, no ground truth [single, 1 of them in tiles of 128]" in text


def test_what_failed_is_remembered(network_file, monkeypatch):
    with torch.inference_mode():
        x = torch.rand(1, 3, 180, 200)
        whole = made("--tile", "160").method.restore(x)
        seen, each = no_memory(monkeypatch, 170 * 170, MemoryError()), made("--tile", "160")
        first, second = each(x), each(torch.rand(1, 3, 190, 210))
    assert seen.count(180 * 200) == 1 and 190 * 210 not in seen and second.shape == (1, 3, 190, 210)
    assert torch.allclose(first, whole, atol=1e-4) and each.tiled == [160, 160] and "give the same as whole images" in each.notes[1]


def test_an_error_that_is_another_goes_on(network_file, monkeypatch):
    no_memory(monkeypatch, 0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="do not fit"):
        made()(torch.rand(1, 3, 20, 20))


@torch.inference_mode()
def test_an_estimate_goes_to_tiles_beforehand(network_file, monkeypatch):
    """On a CPU, a large image is not tried whole if the estimate exceeds the available memory; its tiles fit."""
    seen = no_memory(monkeypatch, 10**9, MemoryError())
    monkeypatch.setattr(memory, "SIDES", (64, 128))
    monkeypatch.setattr(memory, "available", lambda most=0: 60 * 2**20)
    monkeypatch.setattr(memory, "peak", lambda work: (work(), 200 * seen[-1])[1])
    each = made()
    y = each(torch.rand(1, 3, 510, 620))
    assert y.shape == (1, 3, 510, 620) and max(seen) < 510 * 620
    assert "restored in tiles: in one piece they would need about" in each.notes[0]
    assert each.tiled == [384]                   # sqrt((0.8 * 60 MiB - 20 B * pixels) / 250 B), in steps of 64


def test_tiles_that_differ_are_told(network_file, monkeypatch):
    """PyTorch measures the difference; another backend computes nothing but tiles, because it would compile programs for other sizes."""
    def pooled(self, x):
        return x - x.mean((-2, -1), keepdim=True)
    monkeypatch.setattr(Deraining, "restore", pooled)
    each, sides = made("--chop", "--tile", "64"), set()
    each.backend = backend.Backend("compile", lambda x: sides.add(x.shape[-1]) or pooled(None, x))
    with torch.inference_mode():
        each(torch.linspace(0, 1, 200).expand(1, 3, 200, 200))
    assert "differ from whole images: the mean difference is" in each.notes[0] and sides == {64}


def test_memory_is_measured():
    found = memory.per_pixel(lambda x: torch.nn.functional.pad(x, (0, 0, 0, 0, 0, 61)))          # 64 planes of floats
    assert memory.available() is None or memory.available() > 0
    assert memory.available(1e-6) in (0, None)
    assert found is None or 200 < found < 1500
    assert memory.lacks(MemoryError()) and not memory.lacks(RuntimeError("x"))


def test_scored_tests_never_tile_by_themselves(fails, place, network_file, monkeypatch):
    for part in ("input", "target"):
        save(Path(f"dataset/set/{part}/1.png"), photo(40, 50, 1))
    no_memory(monkeypatch, 100, MemoryError())
    assert "restore with --chop" in fails(*FLAGS[:3], "--data_train", "other", "--data_test", "set", "--cpu", "--n_threads", "0", status=1)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_broken_pictures_are_left_out_and_named(run, network_file, workers):
    Path("photos/bad.png").write_bytes(b"no picture")
    whole = Path("photos/a.png").read_bytes()
    Path("photos/cut.png").write_bytes(whole[:len(whole) // 2])
    status, text = run(*FLAGS, "--n_threads", workers)
    last = text.strip().splitlines()[-1]
    assert status == 2, text
    assert last.startswith("main.py: error: 2 of 5 images could not be restored; the other 3 were restored: "
                           "cannot read the image photos/bad.png"), text
    assert last.endswith("one more is listed in experiment/test/log.txt"), text
    assert "photos/cut.png: the file is truncated" in Path("experiment/test/log.txt").read_text()
    assert sorted(path.name for path in RESULTS.iterdir()) == ["a.png", "b.png", "c.png"]
    assert json.loads(Path("experiment/test/metrics.json").read_text())["photos"]["count"] == 3


def test_what_is_done_is_kept(run, network_file):
    assert run(*FLAGS)[0] == 0
    (RESULTS / "b.png").unlink()
    before = (RESULTS / "a.png").stat().st_mtime_ns
    status, text = run(*FLAGS)
    assert status == 0 and "photos: 2 of 3 images are already restored and kept" in text and "photos: 3 images" in text
    assert (RESULTS / "a.png").stat().st_mtime_ns == before and (RESULTS / "b.png").is_file()
    assert len(json.loads(Path("experiment/test/cards-photos.json").read_text())["cards"]) == 3
    os.utime("photos/c.png")
    assert "2 of 3" in run(*FLAGS)[1]                                      # a newer image is restored again
    assert "kept" not in run(*FLAGS, "--self_ensemble")[1]                # other flags: all are restored again
    assert "kept" not in run(*FLAGS, "--self_ensemble", "--no-skip_done")[1]
    os.utime("w.pt")
    assert "kept" not in run(*FLAGS, "--self_ensemble")[1]                # newer weights


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_formats_keep_exif_and_profile(run, network_file, ending):
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010F: "Maker"})
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    save(Path("photos/turned.jpg"), photo(24, 36, 1), exif=exif, icc_profile=profile)
    status, text = run(*FLAGS, "--format", ending)
    assert status == 0, text
    with Image.open(RESULTS / f"turned.{ending}") as result:
        assert result.size == (24, 36) and result.info["icc_profile"] == profile
        assert dict(result.getexif()) == {0x0112: 1, 0x010F: "Maker"}
    assert sorted(path.name for path in RESULTS.iterdir()) == [f"{name}.{ending}" for name in ("a", "b", "c", "turned")]
    assert f"results-photos/turned.{ending}" in Path("experiment/test/report.html").read_text()


def test_a_side_that_a_format_cannot_hold(fails, network_file):
    save(Path("photos/long.png"), photo(2, 16400, 1))
    assert "1 of 4 images could not be restored; the other 3 were restored: long.webp cannot be" in fails(*FLAGS, "--format", "webp")
    assert len(list(RESULTS.iterdir())) == 3


def test_a_disk_that_is_full(fails, network_file, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", str(RESULTS / "a.png"))
    monkeypatch.setattr(image, "write", full)
    assert "No space left on device" in fails(*FLAGS, status=1)


def test_sheets_and_precision_and_ensemble(run, network_file):
    status, text = run(*FLAGS, "--save_gt", "--save_maps", "--self_ensemble", "--test_precision", "bf16")
    assert status == 0, text
    assert image.size(Path("experiment/test/compare-photos/a.png")) == (40, 112)


def restored(run, folder: str, *flags: str) -> str:
    status, text = run("--test_only", "--pre_train", "w.pt", "--dir_demo", folder, "--save_results", "--cpu", "--n_threads", "0", *flags)
    assert status == 0, text
    return text


def test_a_second_folder_leaves_the_results_of_the_first(run, network_file):
    """--data_test is not needed; results are named by the folder, and another folder of that name gets a number."""
    save(Path("more/x.png"), photo(30, 20, 1))
    save(Path("elsewhere/photos/y.png"), photo(30, 20, 2))
    restored(run, "photos")
    restored(run, "more")
    text = restored(run, "elsewhere/photos")
    assert "those of " in text
    assert "are named photos_2" in text
    restored(run, "elsewhere/photos")
    found = sorted(str(path.relative_to("experiment/test")) for path in Path("experiment/test").glob("results-*/*"))
    assert found == ["results-more/x.png", "results-photos/a.png", "results-photos/b.png", "results-photos/c.png", "results-photos_2/y.png"]
    assert {"photos", "more", "photos_2"} == set(json.loads(Path("experiment/test/metrics.json").read_text()))


def test_only_what_a_test_wrote_is_deleted(run, network_file):
    restored(run, "photos", "--save_gt")
    save(RESULTS / "mine.png", photo(8, 8, 1))
    Path("photos/a.png").unlink()
    restored(run, "photos", "--format", "jpg")
    assert sorted(path.name for path in RESULTS.iterdir()) == ["b.jpg", "c.jpg", "mine.png"]
    assert (RESULTS.parent / "compare-photos/a.png").is_file()                       # not a kind that this test writes


def test_a_data_set_named_like_a_folder(run, network_file):
    """The results of a folder stay when a data set of its name is tested, and the other way round."""
    make_pairs(Path("dataset/photos"), 2)
    test = ("--test_only", "--pre_train", "w.pt", "--data_test", "photos", "--save_results", "--cpu", "--n_threads", "0")
    restored(run, "photos")
    status, text = run(*test)
    assert status == 0, text
    assert "has results of another folder or data set named photos; those of the data set are named photos_2" in text
    assert sorted(path.name for path in RESULTS.iterdir()) == ["a.png", "b.png", "c.png"]
    assert len(list(Path("experiment/test/results-photos_2").iterdir())) == 2
    assert run(*test, "--save", "other")[0] == 0
    restored(run, "photos", "--save", "other")
    assert len(list(Path("experiment/other/results-photos").iterdir())) == 2
    assert len(list(Path("experiment/other/results-photos_2").iterdir())) == 3


@pytest.mark.parametrize("content", ["", '{"pictures": ["/tmp/x"]}', '{"pictures": ["a\\u0000"]}', '{"pictures": [".."]}',
                                      "[1]", '{"pictures": 3}', '{"pictures": ["../../w"], "source": 5}', "[" * 100_000])
def test_a_damaged_record_deletes_nothing(run, network_file, content):
    restored(run, "photos")
    save(Path("experiment/w.png"), photo(8, 8, 1))
    Path("experiment/test/restored-photos.json").write_text(content)
    restored(run, "photos", "--save_maps", "--save_gt")
    assert Path("experiment/w.png").is_file()


@pytest.mark.parametrize("failed, count, words", [
    (1, 1, "the image could not be restored: a"), (2, 2, "2 of 2 images could not be restored: a; one more is listed in x/log.txt"),
    (1, 2, "1 of 2 images could not be restored; the other one was restored: a"),
    (3, 9, "3 of 9 images could not be restored; the other 6 were restored: a; 2 more are listed in x/log.txt")])
def test_how_many_were_restored_is_said(failed, count, words):
    assert tester._incomplete(list("abc")[:failed], count, Path("x")) == words
