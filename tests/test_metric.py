"""PSNR and SSIM against scikit-image and against values measured on real data."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import metric
from data import image, paired
from metric import further, measure
from runtime.errors import UserError
from tests.conftest import photo, veiled

CLEAN = photo(60, 80, 1)
OTHER = np.clip(CLEAN + np.random.default_rng(0).normal(0, 12, CLEAN.shape), 0, 255).astype(np.uint8)
GAUSSIAN = dict(data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)


def numbers(output: np.ndarray, target: np.ndarray, protocol: str = "default", task: str = "rain") -> dict[str, float]:
    protocol = metric.PROTOCOLS[protocol]
    output, target = (protocol.fit(image.to_tensor(x)[None]) for x in (output, target))
    return metric.compare(output, target, protocol, task)


def test_equals_scikit_image():
    ours = numbers(OTHER, CLEAN)
    assert ours["psnr"] == pytest.approx(peak_signal_noise_ratio(CLEAN, OTHER), abs=1e-6)
    assert ours["ssim"] == pytest.approx(structural_similarity(CLEAN, OTHER, channel_axis=2, **GAUSSIAN), abs=1e-6)
    y_clean, y_other = (rgb2ycbcr(x)[..., 0] for x in (CLEAN, OTHER))
    assert ours["psnr_y"] == pytest.approx(peak_signal_noise_ratio(y_clean, y_other, data_range=255), abs=1e-4)
    assert ours["ssim_y"] == pytest.approx(structural_similarity(y_clean, y_other, **GAUSSIAN), abs=1e-5)


def test_equal_and_tiny_images():
    assert numbers(CLEAN, CLEAN)["psnr"] == 100
    assert numbers(CLEAN, CLEAN)["ssim"] == pytest.approx(1)
    assert 0 < numbers(CLEAN[:1, :1], veiled(CLEAN)[:1, :1])["psnr"] < 100


def test_outputs_are_rounded_to_8_bits():
    target = image.to_tensor(CLEAN)[None]
    near = {name: metric.compare(target + 0.4 / 255, target, metric.PROTOCOLS[name])["psnr"] for name in ("default", "promptir")}
    assert near["default"] == 100 and near["promptir"] < 60
    assert metric.compare(target - 0.4 / 255, target, metric.PROTOCOLS["y_truncated"])["psnr"] < 60
    assert metric.compare(target, target, metric.PROTOCOLS["y_truncated"])["psnr"] == 100


@pytest.mark.slow
def test_rain100l(real_data):
    """The rainy inputs of images 1-50: 25.18 dB RGB, 26.55 Y, SSIM-Y .8283 (Gaussian), as measured elsewhere."""
    rows = []
    for item in paired.find(real_data / "Rain100L", "test")[0]:
        rows.append(numbers(image.read(item.images["input"]), image.read(item.images["image"])))
    assert len(rows) == 50
    mean = {key: np.mean([row[key] for row in rows]) for key in rows[0]}
    assert mean["psnr"] == pytest.approx(25.18, abs=0.006)
    assert mean["psnr_y"] == pytest.approx(26.55, abs=0.006)
    assert mean["ssim_y"] == pytest.approx(0.8283, abs=0.0001)


def test_luma_of_white_and_black():
    assert measure.channel(torch.ones(1, 3, 1, 1), "y").item() == pytest.approx(235 / 255)
    assert measure.channel(torch.zeros(1, 3, 1, 1), "y").item() == pytest.approx(16 / 255)


def test_further_measures():
    """Measures of the table, by name, on RGB for all channels of the protocol."""
    target = image.to_tensor(CLEAN)[None]
    found = metric.compare(target + 2 / 255, target, metric.PROTOCOLS["snow100k_y"], extra=("mae",))
    assert found["mae"] == pytest.approx(2) and set(found) == {"psnr", "ssim", "mae"}
    assert not set(metric.METRICS) & set(metric.measures(list(metric.PROTOCOLS.values()), ()))


def test_a_measure_of_ones_own(monkeypatch):
    monkeypatch.setitem(metric.METRICS, "bias", metric.Metric(lambda output, target: (output - target).mean().item(), True))
    metric.prepare(("bias",), torch.device("cpu"))
    target = image.to_tensor(CLEAN)[None]
    assert metric.compare(target + 2 / 255, target, metric.PROTOCOLS["default"], extra=("bias",))["bias"] == pytest.approx(2 / 255)
    metric.check_best("bias", metric.protocols("default"), ("bias",))
    assert metric.score({"set": {"bias": 0.5}}, "bias") == -0.5


RESULTS = {"photos": {"data_set": "photos", "count": 3}, "a": {"psnr": 30.0, "ssim": 0.9, "mae": 4.0, "ms_ssim": 0.95, "others": [
    {"psnr": 29.0, "psnr_y": 33.0}]}, "b": {"psnr": 20.0, "ssim": 0.7}}


@pytest.mark.parametrize("best, score", [("psnr", 30.0), ("ssim", 0.9), ("ms_ssim", 0.95), ("mae", -4.0), ("psnr_y", 33.0),
                                         ("ssim_y", None)])
def test_the_number_that_chooses_the_best(best, score):
    """Higher is better; the first set and the first protocol with this number are used."""
    assert metric.score(RESULTS, best) == score


def test_a_measure_of_pyiqa_knows_its_direction(monkeypatch):
    monkeypatch.setattr(further, "_pyiqa", lambda name, device: SimpleNamespace(lower_better=name == "niqe"))
    assert metric.score({"a": {"niqe": 3.0, "musiq": 60.0}}, "niqe") == -3
    assert metric.score({"a": {"niqe": 3.0, "musiq": 60.0}}, "musiq") == 60


def test_a_best_that_nothing_measures():
    both = metric.protocols("smgarn+default")
    for best in ("psnr", "ssim", "psnr_y", "ssim_y", "mae"):
        metric.check_best(best, both, ("mae",))
    with pytest.raises(UserError) as error:
        metric.check_best("ms_ssim", both, ("mae",))
    assert str(error.value) == ("--best 'ms_ssim' is not measured by any test; --protocol smgarn+default and --metrics 'mae' "
                                "measure psnr, ssim, psnr_y, ssim_y, mae")
    with pytest.raises(UserError):
        metric.check_best("psnr_y", metric.protocols("smgarn"), ())
    with pytest.raises(UserError):
        metric.check_best("count", both, ())


@pytest.mark.parametrize("settings, text", [
    (dict(channels=("luma",)), "channels of a protocol are a tuple of rgb, y, y8, task"),
    (dict(channels="rgb"), "channels of a protocol are a tuple"),
    (dict(ssim="box"), "ssim of a protocol is one of gaussian, uniform7, columns7, not 'box'"),
    (dict(rounding="floor"), "rounding of a protocol is one of round, truncate, none, not 'floor'"),
    (dict(border=-1), "border of a protocol is a number of pixels from 0, not -1"),
    (dict(size="crop"), "size of a protocol is 'pad', or 'crop N'"),
])
def test_a_protocol_with_an_unknown_setting(settings, text):
    with pytest.raises(UserError, match=text):
        metric.Protocol(**{"channels": ("rgb",)} | settings)


def test_the_tables_of_settings_are_those_that_are_measured():
    assert list(metric.WINDOWS) == list(measure.SSIM)


@pytest.mark.parametrize("name, text", [("ms_sim", "unknown measure 'ms_sim'; did you mean ms_ssim"), ("psnr", "psnr is always measured")])
def test_a_measure_that_is_misspelt_or_not_further(name, text):
    with pytest.raises(UserError, match=text):
        metric.prepare((name,), torch.device("cpu"))
