"""What decides the cost of Rain2Avoid's training for an image: the recipe, the width of the network, the memory order of its batches."""
from pathlib import Path

import pytest
import torch

import option
from contract import Stage
from data import image
from model.rain2avoid import learning, nss
from runtime import process
from tests.conftest import save
from tests.test_ldgp import streaked
from tests.test_rain2avoid import TINY


def parsed(*flags: str):
    return option.parse(["--model", "rain2avoid", "--dir_demo", "x", *flags])


def test_recipes(place):
    """The defaults of each strategy equal the paper's, except for the number of steps and the width of a network of one image."""
    single, multiple = (parsed("--strategy", each) for each in ("single", "multiple"))
    assert (single.epochs, multiple.stages) == (100, [Stage(2000, "1*MSE", 64, 64)])
    assert single.lr == 1e-3 and single.loss == "1*MSE" and (single.K, single.k, single.sdr_num, single.pow) == (7, 3, 50, 0.5)
    assert process.log() is not None


@pytest.mark.parametrize("flags, channels", [
    ("", 32), ("--strategy online", 32), ("--backbone UNET", 32), ("--channels 64", 64), ("--strategy multiple", 0),
    ("--backbone Restormer", 0), ("--backbone unet(channels=16)", 0), ("--test_only --pre_train w.pth", 0), ("--pre_train w.pth", 0)])
def test_the_width(place, flags, channels):
    """A new UNet of one image is narrow; every other network has its own width, and so have weights that exist."""
    torch.save({"weight": torch.ones(1)}, "w.pth")
    assert parsed(*flags.split()).channels == channels


def test_an_older_experiment_keeps_its_width(run, place):
    """args.json of a version with another default is followed when the experiment continues."""
    for number in range(2):
        save(place / f"photos/{number}.png", streaked(64, 64, -15, number))
    flags = ["--data_train", "Folder", "--dir_demo", "photos", "--save", "x", "--cpu"]
    wide = [*TINY, "--channels", "0"]
    status, text = run(*wide, *flags)
    assert status == 0 and "4,539,988 parameters" in text, text
    Path("dataset/photos/result/1.png").unlink()
    status, text = run("--model", "rain2avoid", *flags)
    assert status == 2 and "exists already; add --reset" in text
    status, text = run("--model", "rain2avoid", *flags, "--resume", "auto")
    assert status == 0 and "1 images to derain" in text and "4,539,988 parameters" in text, text


def test_what_it_will_cost_is_said_before_the_first_result(run, place):
    save(place / "photos/0.png", streaked(64, 64, -15, 0))
    status, text = run(*TINY, "--epochs", "7", "--data_train", "Folder", "--dir_demo", "photos", "--save", "x")
    assert status == 0, text
    assert text.index("the training for an image takes about") < text.index("maps, references and results are in")


def test_batches_have_the_order_of_the_weights():
    """They are channels-last; otherwise a UNet reorders the image that its last layer receives beside the features."""
    args = parsed()
    rgb = streaked(64, 48, 10)
    drawn = nss.draw(torch.from_numpy(rgb), torch.from_numpy((rgb[..., 0] > 200).astype("uint8") * 255), count=50)

    class Whole:
        name, rgb = "x", streaked(64, 48, 10)

    batch = next(iter(learning._train(args, 16, [Whole()], [drawn], args.stages[-1])))
    assert batch.input.shape == (1, 3, 64, 48)
    for each in (batch.input, batch.targets["image"]):
        assert each.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(image.to_tensor(rgb), batch.input[0]) or torch.equal(image.to_tensor(rgb), batch.input[0].flip(-1))
