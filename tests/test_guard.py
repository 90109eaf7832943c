"""Rain2Avoid: fixed batch statistics in the second half of a training, and the guard that refuses a network's output."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from data import image
from model import norm
from model.rain2avoid import guard, learning, nss
from model.unet.network import UNet
from runtime import files
from tests.conftest import photo, save
from tests.test_rain2avoid import TINY

RAIN = np.zeros((24, 24), np.uint8)
RAIN[4:20:4, 4:20] = 255


@pytest.fixture
def drawn() -> nss.Drawn:
    rgb, prior = torch.from_numpy(photo(24, 24, 1)), torch.from_numpy(RAIN)
    return nss.draw(rgb, prior, 50, 10, 7, 0.5, "seeded", 1, 3)


def test_spread_against_a_loop(drawn):
    """It is the RMS difference between ten of the references and their mean over the rain pixels."""
    fused = drawn.fused().numpy().astype(float)
    numbers = np.linspace(0, 49, 10).astype(int)
    squares = [np.square(drawn.reference(int(number)).numpy().astype(float) - fused)[RAIN > 10] for number in numbers]
    assert guard.spread(drawn) == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-5)


def test_what_is_refused(drawn):
    fused, limit = drawn.fused().numpy(), guard.spread(drawn)
    assert guard.refusal(fused, fused, RAIN > 10, limit) == ""
    one = drawn.reference(25).numpy()
    assert guard.distance(one, fused, RAIN > 10) == pytest.approx(limit, rel=0.3)
    glow = np.clip(fused.astype(int) + np.array([60, 40, 5]), 0, 255).astype(np.uint8)
    assert "more than the references differ among themselves" in guard.refusal(glow, fused, RAIN > 10, limit)
    outside = fused.copy()
    outside[RAIN == 0] = 0
    assert guard.refusal(outside, fused, RAIN > 10, limit) == ""              # other pixels keep their values in the result
    assert guard.refusal(glow, fused, RAIN > 10, 0.0) == ""                   # there are no references


@pytest.mark.parametrize("flags", [("--data_train", "Folder"), ("--test_only", "--pre_train", "w.pt", "--save_results", "--save", "y")])
def test_a_glow_is_not_used(run, place, monkeypatch, flags):
    """A network whose output is far from its references is not used; the mean of the references is the result."""
    save(place / "photos/a.png", np.where(RAIN[..., None] > 0, 255, photo(24, 24, 1)).astype(np.uint8).repeat(4, 0).repeat(4, 1))
    common = (*TINY, "--dir_demo", "photos", "--kernel_size", "3")
    assert run(*common, "--data_train", "Folder", "--strategy", "multiple", "--save", "x", "--epochs", "1")[0] == 0
    Path("experiment/x/model/model_best.pt").rename("w.pt")
    fused = Path("dataset/photos/sdr(fuse)/a.png").read_bytes()
    monkeypatch.setattr(UNet, "forward", lambda self, x: torch.ones_like(x) * self.tail.bias.view(1, 3, 1, 1).exp().clamp(9, 9))
    status, text = run(*common, *flags, "--save", "z") if "--save" not in flags else run(*common, *flags)
    assert status == 0, text
    assert "more than the references differ among themselves" in text
    result = Path("dataset/photos/result/a.png" if "--save" not in flags else "experiment/y/results-photos/a.png")
    assert np.array_equal(image.read(result), image.read(Path("dataset/photos/sdr(fuse)/a.png")))
    assert Path("dataset/photos/sdr(fuse)/a.png").read_bytes() == fused


def test_statistics_of_one_batch():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    x = torch.rand(4, 3, 8, 8) * 3
    norm.gather(network, x)
    torch.testing.assert_close(network[0].running_mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(network[0].running_var, x.var((0, 2, 3)))
    torch.testing.assert_close(network.eval()(x), network.train()(x), rtol=0, atol=1e-2)
    norm.fix(network.train())
    before = network[2].running_mean.clone()
    network(x + 5)
    assert torch.equal(network[2].running_mean, before)


def test_the_second_half_trains_what_is_tested(run, place, monkeypatch):
    """From half of the epochs on, the batch norms have the statistics of the image and keep them to the end."""
    save(place / "photos/a.png", photo(48, 48, 1))
    modes, real = [], nn.BatchNorm2d.forward

    def forward(self, x):
        modes.append(self.training)
        return real(self, x)
    monkeypatch.setattr(nn.BatchNorm2d, "forward", forward)
    monkeypatch.setattr(learning.ldgp, "prior", lambda rgb, *rest: np.tile(RAIN, (2, 2)))
    status, text = run(*TINY, "--dir_demo", "photos", "--data_train", "Folder", "--save", "x", "--epochs", "4")
    assert status == 0, text
    changes = [number for number in range(1, len(modes)) if modes[number] != modes[number - 1]]
    assert modes[changes[-1]:] == [False] * (len(modes) - changes[-1])
    assert json.loads(Path("experiment/x/pictures.json").read_text())


@pytest.mark.parametrize("content", ["", "[1]", '{"photos": 3}', '{"photos": {"a": [1]}}', '{"photos": {"a": {"default": 1}}}',
                                     "[" * 100_000])
def test_a_damaged_list_of_finished_images(place, content):
    files.write_text(Path("pictures.json"), content)
    assert learning._finished(Path("pictures.json")) == {}
    files.write_text(Path("pictures.json"), '{"photos": {"a": {"default": {"psnr": 1.0}}, "b": {}}}')
    assert set(learning._finished(Path("pictures.json"))["photos"]) == {"a", "b"}
