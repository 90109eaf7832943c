"""Rain2Avoid on the command line: folders of rainy images, steps, strategies, backbones, interruptions."""
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import tester
from data import image
from model.rain2avoid import guard, nss
from model.rain2avoid.references import References
from tests.conftest import photo, save
from tests.parity import facts, released_state
from tests.test_ldgp import streaked
from trainer import Trainer

TINY = ["--model", "rain2avoid", "--channels", "4", "--epochs", "2", "--sdr_num", "4", "--patch_size", "48", "--n_threads", "0", "--cpu"]
PLACE = Path("dataset/photos")


def results(kind: str = "result", place: Path = PLACE) -> dict[str, tuple[int, ...]]:
    return {path.stem: image.read(path).shape for path in image.listing(place / kind)}


@pytest.fixture
def photos(place) -> Path:
    """Create a folder of rainy photos of unusual sizes, with a file Thumbs.db as Windows writes it."""
    for number, size in enumerate(((96, 90), (50, 81), (101, 64))):
        save(place / "photos" / f"{number}.png", streaked(*size, -15, number))
    (place / "photos" / "Thumbs.db").write_bytes(b"thumbs")
    return place / "photos"


@pytest.fixture
def rainy(place) -> Path:
    """Create a set with targets."""
    for number in range(3):
        save(place / "dataset/rainy/input" / f"{number}.png", streaked(96, 90, -15, number))
        save(place / "dataset/rainy/target" / f"{number}.png", photo(96, 90, number))
    return place / "dataset/rainy"


def test_a_folder_of_photos(run, photos):
    """Maps, fused references and results have the sizes of the images; no clean image is needed."""
    status, text = run(*TINY, "--data_train", "Folder", "--dir_demo", "photos", "--save", "mine")
    assert status == 0, text
    sizes = {"0": (96, 90, 3), "1": (50, 81, 3), "2": (101, 64, 3)}
    assert results("ldgp") == results("sdr(fuse)") == results() == sizes
    assert "3 images, restored, no ground truth" in text and not (PLACE / "sdr").exists()
    assert "maps, references and results are in dataset/photos" in text
    assert "logs and numbers are in experiment/mine" in text
    assert not list(photos.glob("*/"))                            # nothing is written beside the user's photos


def test_numbers_where_there_is_truth(run, rainy):
    """The numbers of rainy image, fused reference and network are in the log, in metrics.json and in the table."""
    status, text = run(*TINY, "--data_train", "rainy", "--save", "x", "--protocol", "default+y_truncated")
    assert status == 0, text
    assert "; input " in text and "; fused " in text and "; network " in text
    assert "rainy" in Path("experiment/x/report.html").read_text()
    found = json.loads(Path("experiment/x/metrics.json").read_text())["rainy"]
    assert found["count"] == 3 and found["protocol"]["name"] == "default" and len(found["others"]) == 1
    assert {"psnr", "psnr_y", "input_psnr_y", "fused_psnr_y", "fused_ssim", "network_psnr"} <= set(found)
    assert found["fused_psnr"] > found["input_psnr"] + 1
    assert len(Path("experiment/x/metrics-rainy.csv").read_text().splitlines()) == 1 + 2 * 3


def test_truth_beside_the_photos(run, photos):
    """target/ in the folder is used if it has the targets of all images."""
    flags = [*TINY, "--data_train", "Folder", "--dir_demo", "photos", "--steps", "all"]
    for number, size in enumerate(((96, 90), (50, 81), (101, 64))):
        save(photos / "target" / f"{number}.png", photo(*size, number))
    status, text = run(*flags, "--save", "x")
    assert status == 0 and "; fused " in text, text
    (photos / "target/1.png").unlink()
    status, text = run(*flags, "--save", "y")
    assert status == 0 and "lacks the targets of some images" in text and "restored, no ground truth" in text


def test_it_learns_to_derain(run, rainy, monkeypatch):
    """After a few seconds of training the result is nearer to the target, which training does not use, than the rainy image."""
    status, text = run(*TINY, "--channels", "16", "--sdr_together", "4", "--epochs", "150", "--lr", "3e-3", "--data_train", "rainy",
                       "--data_range", "1-1", "--save", "x", "--patch_size", "96")
    assert status == 0, text
    found = json.loads(Path("experiment/x/metrics.json").read_text())["rainy"]
    assert found["count"] == 1 and found["network_psnr"] > found["input_psnr"] + 3
    result, rainy_one, prior = (image.read(rainy / kind / "0.png") for kind in ("result", "input", "ldgp"))
    assert (result == rainy_one)[prior <= 10].all() and found["psnr"] != found["network_psnr"]
    monkeypatch.setattr(guard, "refusal", lambda *given: "")             # it would refuse a network of two epochs
    status, text = run(*TINY, "--data_train", "rainy", "--data_range", "1-1", "--save", "y", "--no-keep_clean")
    found = json.loads(Path("experiment/y/metrics.json").read_text())["rainy"]
    assert status == 0 and found["psnr"] == found["network_psnr"]


def test_steps_alone(run, rainy):
    """Each step writes the files that the next one reads; edited maps are used; --export_sdr writes all references."""
    flags = [*TINY, "--data_train", "rainy", "--save", "x"]
    assert run(*flags, "--steps", "ldgp")[0] == 0
    assert results("ldgp", rainy) and not (rainy / "sdr(fuse)").exists() and not Path("experiment/x").exists()
    drawn = np.zeros((96, 90), np.uint8)
    drawn[20:40, 30:33] = 255
    image.write(rainy / "ldgp/0.png", drawn)
    assert run(*flags, "--steps", "nss", "--export_sdr")[0] == 0
    assert len(list((rainy / "sdr/0").iterdir())) == 4 and not (rainy / "result").exists()
    changed = (image.read(rainy / "sdr(fuse)/0.png") != image.read(rainy / "input/0.png")).any(-1)
    assert changed.any() and not changed[drawn == 0].any()
    assert run(*flags, "--steps", "learn")[0] == 0
    assert len(results(place=rainy)) == 3 and np.array_equal(image.read(rainy / "ldgp/0.png")[..., 0], drawn)
    assert run(*flags, "--reset")[0] == 0
    assert not np.array_equal(image.read(rainy / "ldgp/0.png")[..., 0], drawn)                 # --steps all makes the maps again


def test_the_references_are_drawn_anew(run, rainy):
    """Only the mean is stored; the same seed gives the same references again."""
    flags = [*TINY, "--data_train", "rainy", "--save", "x", "--steps", "nss"]
    assert run(*flags)[0] == 0
    fused = {path.name: path.read_bytes() for path in (rainy / "sdr(fuse)").iterdir()}
    assert run(*flags, "--export_sdr")[0] == 0
    assert fused == {path.name: path.read_bytes() for path in (rainy / "sdr(fuse)").iterdir()}
    mean = np.mean([image.read(path).astype(float) for path in (rainy / "sdr/1").iterdir()], axis=0)
    assert np.array_equal(np.rint(mean), image.read(rainy / "sdr(fuse)/1.png"))


def test_pictures_that_teach_nothing(run, place):
    """Images without rain, with only rain, and tiny ones have a result; the log states why it equals the input."""
    save(place / "photos/dry.png", np.full((90, 100, 3), 90, np.uint8))
    save(place / "photos/flood.png", photo(60, 60, 1))
    save(place / "photos/speck.png", streaked(5, 7, 0))
    flags = [*TINY, "--data_train", "Folder", "--dir_demo", "photos", "--save", "x"]
    save(PLACE / "ldgp/flood.png", np.full((60, 60), 255, np.uint8))
    status, text = run(*flags, "--steps", "learn")
    assert status == 0, text
    assert "dry: no rain was found in it; the result is the unchanged image" in text
    assert "flood: its map marks almost all pixels as rain (100%), so there is no clean pixel to learn from" in text
    for name in ("dry", "flood"):
        assert np.array_equal(image.read(PLACE / f"result/{name}.png"), image.read(place / f"photos/{name}.png"))
    assert results()["speck"] == (5, 7, 3)
    sentence = run(*flags, "--strategy", "multiple", "--save", "y", "--steps", "learn", "--data_range", "1-1")
    assert sentence[0] == 2 and "no image of Folder can be used for training; for example dry: no rain was found in it" in sentence[1]


@pytest.mark.parametrize("step, finished", [(4, []), (12, ["0"])])          # 2 epochs of 4 steps each, so 4 is in the first image
def test_an_interrupted_run_goes_on_with_the_next_picture(run, photos, monkeypatch, step, finished):
    flags = [*TINY, "--sdr_together", "1", "--data_train", "Folder", "--dir_demo", "photos", "--save", "x"]
    real, calls, killed = Trainer.train_step, [], []

    def train_step(self, batch):
        calls.append(self.run.name)
        if len(calls) == step and not killed:
            killed.append(True)
            signal.raise_signal(signal.SIGTERM)
        return real(self, batch)
    monkeypatch.setattr(Trainer, "train_step", train_step)
    status, text = run(*flags)
    assert status == 143 and f"stopped by SIGTERM at {len(finished)}; finished images are kept" in text
    assert [path.stem for path in sorted(PLACE.glob("result/*"))] == finished
    calls.clear()
    status, text = run(*flags)
    assert status == 0 and sorted({*calls, *finished}) == ["0", "1", "2"] and not {*calls} & {*finished} and len(results()) == 3
    calls.clear()
    assert run(*flags)[0] == 0 and not calls                      # all are finished
    assert "exists already; add --reset" in run(*flags, "--lr", "0.1")[1]
    assert run(*flags, "--lr", "0.1", "--reset")[0] == 0 and set(calls) == {"0", "1", "2"}


def test_one_network_for_all(run, rainy):
    """--strategy multiple writes results, numbers, and weights that restore other images later."""
    status, text = run(*TINY, "--strategy", "multiple", "--data_train", "rainy", "--save", "x", "--val_epochs", "1")
    assert status == 0, text
    assert len(results(place=rainy)) == 3 and "; fused " in text
    state = json.loads(Path("experiment/x/log.jsonl").read_text().splitlines()[-1])
    assert state["event"] == "test" and state["weights"] == "multiple, a network for the set"
    status, text = run("--test_only", "--pre_train", "experiment/x/model/model_best.pt", "--data_test", "rainy", "--save", "y", "--cpu",
                       "--sdr_num", "4")
    assert status == 0 and "rainy: 3 images" in text and "pixels that are not rain in the map keep their values" in text
    results_, alone = (json.loads(Path(f"experiment/{each}/metrics.json").read_text())["rainy"] for each in "yx")
    assert results_["psnr"] == pytest.approx(alone["psnr"], abs=0.01) and results_["psnr"] != alone["network_psnr"]
    assert "contradicts" in run("--test_only", "--pre_train", "experiment/x/model/model_best.pt", "--model", "unet")[1]


def test_truth_does_not_choose_the_weights(run, rainy, monkeypatch):
    """The newest weights are the best ones, whatever the test measures."""
    real = tester.metric.compare
    worse = iter(np.linspace(40, 1, 10000))
    monkeypatch.setattr(tester.metric, "compare", lambda *a, **k: {**real(*a, **k), "psnr": next(worse)})
    assert run(*TINY, "--strategy", "multiple", "--data_train", "rainy", "--save", "x", "--val_epochs", "1", "--epochs", "3")[0] == 0
    best, latest = (torch.load(f"experiment/x/model/model_{name}.pt", weights_only=True)["note"] for name in ("best", "latest"))
    assert best["epoch"] == latest["epoch"] == 3


def test_online_warm_start_and_plateau(run, photos, monkeypatch):
    """References are drawn during training; a network starts from the previous one; a training ends early."""
    steps = []
    real = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda self, batch: steps.append(real(self, batch)) or steps[-1])
    flags = [*TINY, "--data_train", "Folder", "--dir_demo", "photos", "--sdr_together", "4", "--epochs", "30"]
    assert run(*flags, "--strategy", "online", "--save", "a")[0] == 0
    assert len(steps) == 3 * 30
    cold = steps[30]["loss"]
    steps.clear()
    assert run(*flags, "--strategy", "online", "--warm_start", "--save", "b")[0] == 0
    assert steps[30]["loss"] < 0.5 * cold
    steps.clear()
    assert run(*flags, "--plateau", "2", "--lr", "0", "--save", "c")[0] == 0
    assert 3 * 4 <= len(steps) < 3 * 8


@pytest.mark.parametrize("backbone, flags", [("Unet", []), ("ResNet", []), ("DnCNN", []), ("Restormer", ["--blocks", "1-1-1-1"]),
                                             ("DRSFormer", ["--blocks", "1-1-1-1"]), ("smgarn", [])])
def test_backbones(run, photos, backbone, flags):
    """Twenty steps reduce the loss of the paper's five backbones and of another model."""
    losses = []
    with pytest.MonkeyPatch.context() as patch:
        real = Trainer.train_step
        patch.setattr(Trainer, "train_step", lambda self, batch: losses.append(real(self, batch)) or losses[-1])
        (photos / "1.png").unlink()
        (photos / "2.png").unlink()
        status, text = run(*TINY, "--backbone", backbone, *flags, "--data_train", "Folder", "--dir_demo", "photos", "--save", "x",
                           "--sdr_together", "4", "--epochs", "20", "--patch_size", "64")
    assert status == 0, text
    assert len(losses) == 20 and losses[-1]["loss"] < losses[0]["loss"]


@pytest.mark.parametrize("flags, words", [
    ("--backbone rain2avoid", "is this model itself"),
    ("--backbone no_such_model", "unknown model 'no_such_model'"),
    ("--backbone Unet --blocks 3", "the backbone unet has no flag --blocks"),
    ("--backbone Restormer --channels 7", "--channels must be even"),
    ("--K 8", "--K must be odd, so that the window has a middle pixel, not 8"),
    ("--k 9", "--k 9 is larger than --K 7"),
    ("--ldgp_patch 20", "from 32"),
    ("--strategy double", "invalid choice"),
    ("--strategy multiple --data_train DemoRain+DemoSnow", "trains a network for one set"),
])
def test_flags_that_cannot_be(fails, photos, flags, words):
    assert words in fails(*TINY, "--data_train", "Folder", "--dir_demo", "photos", "--save", "x", *flags.split())
    assert not Path("experiment/x").exists() and not PLACE.exists()


def test_a_folder_without_pictures(fails, place):
    (place / "photos").mkdir()
    assert "holds no image" in fails(*TINY, "--data_train", "Folder", "--dir_demo", "photos", "--save", "x")
    assert "give --dir_demo" in fails(*TINY, "--data_train", "Folder", "--save", "x")


@pytest.mark.parametrize("name", ["unet", "resnet", "dncnn", "restormer", "drsformer"])
def test_released_backbones_load(run, rainy, name):
    """A released file of a backbone, with the released names, can be tested with --model rain2avoid."""
    known = facts(f"r2a_{name}")
    torch.save(released_state(known), "released.pth")
    status, text = run("--model", "rain2avoid", "--backbone", name, "--test_only", "--pre_train", "released.pth", "--data_test", "rainy",
                       "--data_range", "1-1", "--save", "x", "--cpu", "--n_threads", "0")
    assert status == 0 and "tensors matched" in text and "released file" in text, text


class Whole:
    """The attributes of a Picture that References uses."""

    def __init__(self, rgb: np.ndarray):
        self.name, self.rgb = "x", rgb


@pytest.mark.parametrize("together", [1, 3, 6])
def test_targets_are_means_of_references(together):
    """An epoch of one image uses every reference once; the target of a crop is the crop of their mean."""
    rgb = streaked(64, 48, 10)
    prior = np.where(np.random.default_rng(0).random((64, 48)) < 0.2, 255, 0).astype(np.uint8)
    drawn = nss.draw(torch.from_numpy(rgb), torch.from_numpy(prior), count=6)
    all_of_them = torch.stack([drawn.reference(number) for number in range(6)]).float() / 255
    samples = References([Whole(rgb)], [drawn], together, 1, 512, 16, "")
    targets = [samples[1, index, index].targets["image"] for index in range(6 // together)]
    assert torch.allclose(torch.stack(targets).mean(0), all_of_them.mean(0).permute(2, 0, 1), atol=1e-5)
    assert torch.equal(samples[1, 0, 0].input, image.to_tensor(rgb))
    cut = References([Whole(rgb)], [drawn], 6, 1, 32, 16, "all")[1, 0, 0]
    assert cut.input.shape == cut.targets["image"].shape == (3, 32, 32)
    assert (cut.input - cut.targets["image"]).abs().max() > 0


def test_a_mean_has_the_gradient_of_its_references():
    """The gradient of the squared error to the mean of k references equals the mean gradient of the k squared errors."""
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    references = torch.rand(5, 3, 8, 8)
    one, = torch.autograd.grad(((x - references) ** 2).mean(), x)
    mean, = torch.autograd.grad(((x - references.mean(0, keepdim=True)) ** 2).mean(), x)
    assert torch.allclose(one, mean, atol=1e-6)
