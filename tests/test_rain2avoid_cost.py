"""What decides the cost of Rain2Avoid's training for an image: its stages, and the memory order of its batches."""
from pathlib import Path

import torch

import option
from contract import Stage
from data import image
from model import rain2avoid
from model.rain2avoid import learning, nss
from runtime import process
from tests.conftest import save
from tests.test_ldgp import streaked
from tests.test_rain2avoid import TINY

SMALL = ["--channels", "4", "--sdr_num", "4", "--n_threads", "0", "--cpu"]


def parsed(*flags: str):
    return option.parse(["--model", "rain2avoid", "--dir_demo", "x", *flags])


def test_recipes(place):
    """The defaults of each strategy equal the paper's, except for the crops and the number of steps for one image."""
    single, multiple = (parsed("--strategy", each) for each in ("single", "multiple"))
    assert single.stages == [Stage(100, "1*MSE", 256, 1)]
    assert multiple.stages == [Stage(2000, "1*MSE", 64, 64)]
    assert parsed("--patch_size", "128-256").stages == [Stage(50, "1*MSE", 128, 1), Stage(50, "1*MSE", 256, 1)]
    assert single.lr == 1e-3 and single.loss == "1*MSE" and (single.K, single.k, single.sdr_num, single.pow) == (7, 3, 50, 0.5)
    assert process.log() is not None


def test_an_older_experiment_keeps_its_crops(run, place, monkeypatch):
    """args.json of a version with other defaults is followed when the experiment continues: 100 epochs of crops of one size."""
    for number in range(2):
        save(place / f"photos/{number}.png", streaked(64, 64, -15, number))
    flags = ["--model", "rain2avoid", "--data_train", "Folder", "--dir_demo", "photos", "--save", "x"]
    with monkeypatch.context() as older:
        older.setitem(rain2avoid.STRATEGIES, "single", dict(epochs=3, batch_size="1", patch_size="48"))
        assert run(*flags, *SMALL)[0] == 0
    Path("dataset/photos/result/1.png").unlink()
    status, text = run(*flags, *SMALL)
    assert status == 2 and "exists already; add --reset" in text
    plans, real = [], learning._train
    monkeypatch.setattr(learning, "_train", lambda args, *rest: plans.append(args.stages) or real(args, *rest))
    status, text = run(*flags, "--resume", "auto")
    assert status == 0 and "1 images to derain" in text and plans == [[Stage(3, "1*MSE", 48, 1)]], text


def test_what_it_will_cost_is_said_before_the_first_result(run, place):
    save(place / "photos/0.png", streaked(64, 64, -15, 0))
    status, text = run(*TINY, "--epochs", "7", "--data_train", "Folder", "--dir_demo", "photos", "--save", "x")
    assert status == 0, text
    assert text.index("the training for an image takes about") < text.index("maps, references and results are in")


def test_the_cost_counts_larger_crops_as_longer():
    """50 epochs of 128² and 50 of 256² take as long as 250 of 128²; a crop is not larger than the image."""
    stages = parsed("--patch_size", "128-256").stages
    assert learning._alike(stages, (320, 480, 3)) == 250
    assert learning._alike(stages, (128, 192, 3)) == 125
    assert learning._alike(stages, (100, 90, 3)) == 100


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


def test_pairs_of_unequal_size_are_refused_first(fails, place):
    """No image is derained before the sizes of all pairs are known to be equal."""
    for number, width in enumerate((64, 60)):
        save(place / f"dataset/set/input/{number}.png", streaked(64, 64, -15, number))
        save(place / f"dataset/set/target/{number}.png", streaked(64, width, -15, number))
    sentence = fails("--model", "rain2avoid", "--data_train", "set", "--save", "x", *SMALL)
    assert "the images of a pair must have one size: dataset/set/input/1.png is 64x64, dataset/set/target/1.png is" in sentence
    assert not Path("dataset/set/result").exists()
