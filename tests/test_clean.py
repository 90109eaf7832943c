"""--do_no_harm: clean images that a final test restores as well."""
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from data import image
from model.smgarn import SnowRemoval
from tests.conftest import TINY, photo, save
from tests.test_report import Reader
from tests.test_run import numbers, records

WARNING = "warning: set: the network changes clean images: "


@pytest.fixture
def answers(monkeypatch):
    """answers(function) makes networks return function(x) for images (B, 3, H, W) in [0, 1]; returns the list of these images."""
    def replace(function) -> list[torch.Tensor]:
        seen: list[torch.Tensor] = []

        def restore(self, x):
            seen.append(x.clone())
            return function(x)
        monkeypatch.setattr(SnowRemoval, "restore", restore)
        return seen
    return replace


def measured(run, trained, *flags: str) -> tuple[str, list[dict]]:
    """Test the trained weights on the whole set with --do_no_harm; return the printed text and the entries of metrics.json."""
    status, text = run("--test_only", "--pre_train", trained / "model/model_best.pt", "--data_test", "set", "--cpu", "--do_no_harm",
                       "--save", "y", "--n_threads", "0", "--data_range", "1-4", *flags)
    assert status == 0, text
    return text, numbers(Path("experiment/y")).get("clean")


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - two) ** 2))


def noisy(name: str, sigma: int) -> np.ndarray:
    """Return the target `name` with the noise of --seed 1, in the form of data sets NAME@sigma."""
    rng = np.random.default_rng((1, zlib.crc32(b"set"), zlib.crc32(name.encode())))
    clean = image.read(Path(f"dataset/set/target/{name}.png"))
    return np.clip(clean + rng.normal(0, sigma, clean.shape), 0, 255).astype(np.uint8)


def test_a_network_that_changes_nothing(run, trained, answers):
    """Clean images stay equal, which is 100 dB; with noise the PSNR is that of the noise; nothing is warned of."""
    answers(lambda x: x)
    text, entries = measured(run, trained)
    assert [(each["sigma"], each["count"]) for each in entries] == [(0, 4), (5, 4), (10, 4)]
    assert entries[0]["psnr"] == entries[0]["worst"] == 100
    for each in entries[1:]:
        expected = {name: psnr(noisy(name, each["sigma"]), image.read(Path(f"dataset/set/target/{name}.png")))
                    for name in ("00", "01", "02", "03")}
        assert each["psnr"] == pytest.approx(np.mean([*expected.values()]), abs=1e-6)
        assert each["worst_image"] == min(expected, key=expected.get)
        assert each["worst"] == pytest.approx(min(expected.values()), abs=1e-6)
    assert "set: 4 clean images restored, PSNR (RGB) sigma 0 100.00 dB, worst 100.00 (00); sigma 5 " in text and WARNING not in text


def test_a_network_that_shifts_colours(run, trained, answers):
    """A shift of 4 levels is 36.1 dB: a warning names the worst image, and log, table and page have the numbers."""
    answers(lambda x: x + 4 / 255)
    save(Path("dataset/set/target/02.png"), np.full((40, 48, 3), 255, np.uint8))       # white stays white, and is the best
    text, (first, *_) = measured(run, trained)
    shifted = 10 * np.log10(255**2 / 16)
    assert first["psnr"] == pytest.approx((3 * shifted + 100) / 4) and first["worst"] == pytest.approx(shifted)
    assert WARNING not in text                                                         # the mean is above the limit
    save(Path("dataset/set/target/02.png"), photo(40, 48, 2))
    text, (first, *_) = measured(run, trained)
    assert first["psnr"] == pytest.approx(shifted, abs=1e-6)
    assert WARNING + f"restored, their mean PSNR is {shifted:.2f} dB (RGB), below 38 dB; the worst is " in text
    assert records(Path("experiment/y"))[-1]["clean"][0] == first
    page = Reader(Path("experiment/y/report.html"))
    assert "clean images, sigma 0" in page.text and f"worst {shifted:.2f}, {first['worst_image']}" in page.text


def test_the_first_protocol_rounds_and_cuts(run, trained, answers):
    """0.9 levels are rounded to one and truncated to none; the clean image is cut to multiples of 16."""
    seen = answers(lambda x: x + 0.9 / 255)
    one = 10 * np.log10(255**2)
    assert measured(run, trained, "--protocol", "default+dsrir")[1][0]["psnr"] == pytest.approx(one, abs=1e-6)
    assert measured(run, trained, "--protocol", "dsrir+default")[1][0]["psnr"] == 100
    seen.clear()
    measured(run, trained, "--protocol", "promptir")
    assert {tuple(x.shape) for x in seen} == {(1, 3, 32, 48)}


def test_only_final_tests_restore_clean_images(run, pairs, answers):
    """A training with a test after each of 2 epochs restores the held-out image 3 times, and clean images only at the end."""
    seen = answers(lambda x: x)
    assert run("--data_train", "set", "--save", "x", *TINY, "--epochs", "2", "--do_no_harm")[0] == 0
    degraded, clean = (image.to_tensor(image.read(pairs / kind / "03.png")) for kind in ("input", "target"))
    assert [torch.equal(x[0], degraded) for x in seen] == [True] * 3 + [False] * 3
    assert torch.equal(seen[3][0], clean)
    tests = [record for record in records(Path("experiment/x")) if record["event"] == "test"]
    assert ["clean" in record for record in tests] == [False, False, True]


def test_a_shared_target_is_restored_once(run, trained, answers):
    """A set with several inputs for each clean image, as in SOTS, restores each clean image once; the noise depends on its name."""
    seen = answers(lambda x: x)
    for name in ("1_a", "1_b", "2_a"):
        save(Path(f"dataset/SOTS_indoor/hazy/{name}.png"), photo(40, 48, 7))
    for name in ("1", "2"):
        save(Path(f"dataset/SOTS_indoor/clear/{name}.png"), photo(40, 48, int(name)))
    status, text = run("--test_only", "--pre_train", trained / "model/model_best.pt", "--data_test", "SOTS_indoor", "--cpu", "--do_no_harm")
    assert status == 0 and "SOTS_indoor: 2 clean images restored" in text
    assert len(seen) == 3 + 2 * 3


def test_sets_without_targets_are_left_out(run, trained, answers):
    seen = answers(lambda x: x + 20 / 255)
    save(Path("photos/a.png"), photo(40, 48, 1))
    status, text = run("--test_only", "--pre_train", trained / "model/model_best.pt", "--dir_demo", "photos", "--data_test", "Demo+set",
                       "--cpu", "--do_no_harm", "--save", "y", "--data_range", "1-4")
    assert status == 0 and WARNING in text and len(seen) == 1 + 4 + 3 * 4, text
    found = json.loads(Path("experiment/y/metrics.json").read_text())
    assert "clean" not in found["photos"] and len(found["set"]["clean"]) == 3
