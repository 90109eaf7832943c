"""Training of every system by the Trainer: stages, teachers, lists, and an increase of PSNR."""
import json
from pathlib import Path

import pytest
import torch

import option
from data import image
from runtime import files
from tests.conftest import make_pairs, photo, save, veiled

SHORT = ["--epochs", "2", "--test_every", "1", "--batch_size", "2", "--n_threads", "0", "--cpu"]
PLAIN = {                                 # small networks, with their losses except those that need ImageNet weights
    "sapnet": ["--channels", "16", "--recurrent_iter", "2", "--loss", "1*SSIM / 1*SSIM"],
    "dsrir": ["--channels", "16", "--loss", "1*Uncertainty:restored:image+1*PSNR+0.25*PSNR:restored.1:image+0.25*PSNR:restored.2:image"],
    "two_stage_kd": ["--channels", "4", "--blocks", "1", "--template", "kd_teacher"],
    "unet": ["--channels", "4"],
    "resnet": ["--channels", "4"],
    "dncnn": ["--channels", "4"],
    "restormer": ["--channels", "4", "--blocks", "1-1-1-1"],
    "drsformer": ["--channels", "4", "--blocks", "1-1-1-1"],
}
COLLATION = "1*L1:image:teacher_image+1*L1:projected:teacher_projected+0.05*L1:reconstructed:teacher_feature"
KD = [*PLAIN["two_stage_kd"][:4], "--loss", f"{COLLATION} / 1*L1", "--patch_size", "32"]


def numbers(name: str, data_set: str) -> dict:
    return json.loads(Path(f"experiment/{name}/metrics.json").read_text())[data_set]


def records(name: str, event: str = "epoch") -> list[dict]:
    lines = Path(f"experiment/{name}/log.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == event]


@pytest.fixture
def weathers(place) -> Path:
    """Create three sets of pairs with veils of three colours, and JSON lists of them in meta/."""
    for number, name in enumerate(("A", "B", "C")):
        root = make_pairs(place / "dataset" / name, 5 + number)
        pairs = [[str(Path("dataset", name, part, f"{index:02}.png")) for part in ("target", "input")] for index in range(5 + number)]
        for part, chosen in (("train", pairs[:-1]), ("valid", pairs[-1:])):
            files.make_folder(place / "meta" / part)
            (place / "meta" / part / f"{name}.json").write_text(json.dumps(chosen))
        assert root.is_dir()
    return place


@pytest.fixture
def teachers(run, weathers) -> list[str]:
    """Return the model files of three trained teachers."""
    for name in "ABC":
        status, text = run("--model", "two_stage_kd", *PLAIN["two_stage_kd"], "--data_train", name, "--save", name, *SHORT, "--patch_size",
                           "32", "--lr", "1e-3", "--epochs", "1")
        assert status == 0, text
    return [f"experiment/{name}/model/model_best.pt" for name in "ABC"]


@pytest.mark.parametrize("name, steps, lr", [("sapnet", 60, "3e-3"), ("dsrir", 40, "2e-3"), ("two_stage_kd", 150, "4e-3")])
def test_training_raises_psnr(run, place, name, steps, lr):
    """Each system, with a small network, removes a veil from images on which it was not trained."""
    make_pairs(place / "dataset" / "veil", 8, size=(48, 48))
    epochs = ["--epochs", "4", "--test_every", str(steps // 4)] if name == "dsrir" else ["--epochs", "2", "--test_every", str(steps // 2)]
    status, text = run("--model", name, *PLAIN[name], "--data_train", "veil", "--save", "x", *epochs, "--lr", lr, "--warmup", "0.2",
                       "--schedule", "cosine", "--batch_size", "4", "--patch_size", "32", "--n_threads", "0", "--cpu",
                       "--data_range", "1-6/7-8", "--val_epochs", "4")
    assert status == 0, text
    result = numbers("x", "veil")
    assert result["psnr"] > result["input_psnr"] + 3, text


def test_the_stages_of_each_recipe(place):
    """The defaults equal the papers: epochs, patch sizes, batch sizes and losses of each stage."""
    sapnet = option.parse(["--model", "sapnet"])
    assert sizes(sapnet) == [(50, 100, 12), (50, 100, 12)]
    assert "UBS" not in sapnet.stages[0].loss and sapnet.stages[1].loss.endswith("0.1*UBS") and sapnet.data_test == "Rain100H"
    assert sapnet.decay == [30, 50, 80] and sapnet.gamma == 0.2
    dsrir = option.parse(["--model", "dsrir", "--data_train", "DemoNoise"])
    assert sizes(dsrir) == [(135, 128, 16), (103, 160, 14), (76, 192, 12), (33, 256, 8)] and dsrir.warmup == 3
    noise = option.parse(["--model", "dsrir", "--data_train", "DemoNoise", "--mode", "noise"])
    assert [stage.epochs for stage in noise.stages] == [390, 299, 219, 97]
    assert option.parse(["--model", "dsrir", "--data_train", "DemoNoise", "--mode", "rain"]).epochs == 1054
    kd = option.parse(["--model", "two_stage_kd", "--data_train", "A+B+C", "--teachers", "a", "b", "c"])
    assert (sizes(kd), kd.lr, kd.balanced) == ([(125, 224, 32), (125, 224, 32)], 4e-4, True)
    assert option.parse(["--model", "two_stage_kd", "--data_train", "A", "--batch_size", "16"]).lr == 2e-4


def sizes(args) -> list[tuple[int, int, int]]:
    return [(stage.epochs, stage.patch_size, stage.batch_size) for stage in args.stages]


def test_epochs_scale_borders_and_warm_up(place):
    args = option.parse(["--model", "two_stage_kd", "--data_train", "A", "--epochs", "50"])
    assert [stage.epochs for stage in args.stages] == [25, 25] and args.warmup == pytest.approx(0.6)


def test_flags_of_the_rain_recipe(run, fails, place):
    """--no-use_* removes a term from the loss; without stage 1 there is nothing to train."""
    args = option.parse(["--model", "sapnet", "--no-use_contrast", "--no-use_lpis", "--save_freq", "5"])
    assert [stage.loss for stage in args.stages] == ["1*SSIM", "1*SSIM+0.1*UBS"] and args.val_epochs == 5 and args.save_models
    assert option.parse(["--model", "sapnet", "--no-use_seg_stage1"]).stages[1].loss == "1*SSIM+0.4*PCL+1*LPISL"
    make_pairs(place / "dataset" / "set")
    sentence = fails("--model", "sapnet", *PLAIN["sapnet"], "--data_train", "set", "--no-use_stage1", "--save", "x", *SHORT)
    assert "--no-use_stage1 leaves nothing to train" in sentence


def test_strict_rain_list_counts(run, place):
    """RainTrainH has 1,254 pairs in the strict list; another count gives a warning with both numbers."""
    for number in range(1, 4):
        clean = photo(40, 48, number)
        save(place / "dataset/RainTrainH" / f"norain-{number}.png", clean)
        save(place / "dataset/RainTrainH" / f"rain-{number}.png", veiled(clean))
    status, text = run("--model", "sapnet", *PLAIN["sapnet"], "--data_test", "RainTrainH", "--save", "x", *SHORT, "--patch_size", "24")
    assert status == 0, text
    assert "warning: RainTrainH (train) has 3 images where 1254 are published" in text


def test_teachers_and_student(run, teachers):
    """The lists of meta/ are found, knowledge collation and examination run, and no projectors are stored in the model file."""
    status, text = run("--model", "two_stage_kd", *KD, "--teachers", *teachers, "--save", "kd", *SHORT)
    assert status == 0, text
    assert "warning" not in text
    assert "stage 1 knowledge collation: epochs 1-1" in text and "stage 2 knowledge examination: epochs 2-2" in text
    losses = [set(record["losses"]) for record in records("kd")]
    assert losses == [{"loss", "L1:teacher_image", "L1:projected:teacher_projected", "L1:reconstructed:teacher_feature"}, {"loss", "L1"}]
    assert {f"meta_valid_{name}.json" for name in "ABC"} == set(json.loads(Path("experiment/kd/metrics.json").read_text()))
    state = files.read_tensors("experiment/kd/model/model_best.pt")
    assert not any("project" in key for key in state["state"]) and "teachers" not in state["arguments"]
    status, text = run("--test_only", "--pre_train", "experiment/kd/model/model_best.pt", "--data_test", "A", "--save", "t", "--cpu")
    assert status == 0, text


def test_resuming_in_the_second_stage(run, teachers):
    """A training that stopped after knowledge collation and was resumed has the same weights as one without a stop."""
    flags = ["--model", "two_stage_kd", *KD, "--teacher", *teachers, *SHORT]
    assert run(*flags, "--save", "whole", "--save_models")[0] == 0
    assert run(*flags, "--save", "whole", "--resume", "1")[0] == 0
    first, second = (files.read_tensors(f"experiment/whole/model/model_{name}.pt")["state"] for name in ("2", "latest"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_teachers_that_do_not_fit(run, fails, teachers):
    flags = ["--model", "two_stage_kd", *KD, "--save", "kd", *SHORT]
    assert "there are 2 --teachers for 3 sets" in fails(*flags, "--teachers", *teachers[:2])
    assert run("--model", "sapnet", *PLAIN["sapnet"], "--data_train", "A", "--save", "other", *SHORT, "--patch_size", "24")[0] == 0
    sentence = fails(*flags, "--teachers", *teachers[:2], "experiment/other/model/model_best.pt")
    assert "--teachers: experiment/other/model/model_best.pt is a checkpoint of the model sapnet, not of two_stage_kd" in sentence
    sentence = fails(*flags, "--teachers", *teachers, "--channels", "8")
    assert "does not fit the model two_stage_kd" in sentence and "teachers need the student's --channels" in sentence
    assert not Path("experiment/kd").exists()


def test_a_batch_that_lacks_a_weather_is_used(run, teachers):
    assert run("--model", "two_stage_kd", *KD, "--teachers", *teachers, "--save", "kd", *SHORT, "--batch_size", "1")[0] == 0
    assert len(records("kd")) == 2


def test_mode_takes_its_list(run, fails, place):
    """--mode reads train_<mode>.csv, derives the epochs from its length and adds noise to the clean photos in it."""
    assert "there is no list train_noise.csv in datasets/train or dataset/train" in fails("--model", "dsrir", "--mode", "noise")
    for number in range(4):
        save(place / "dataset/BSD400" / f"{number}.png", photo(40, 48, number))
    lines = [f"/BSD400/{number}.png|/BSD400/{number}.png\n" for number in range(4)]
    files.make_folder(place / "dataset/train")
    (place / "dataset/train/train_noise.csv").write_text("".join(lines))
    assert option.parse(["--model", "dsrir", "--mode", "noise"]).epochs == sum(n * b // 4 for n, b in (
        (128_000, 16), (112_000, 14), (96_000, 12), (64_000, 8)))
    status, text = run("--model", "dsrir", "--mode", "noise", *PLAIN["dsrir"], "--save", "x", *SHORT, "--epochs", "4", "--patch_size", "32",
                       "--save_results", "--save_maps", "--data_range", "1-3/4-4")
    assert status == 0, text
    assert "stage 4: epochs 4-4" in text and "dB)" in text
    result = numbers("x", "dataset_train_train_noise.csv")
    assert 19 < result["input_psnr"] < 22                        # sigma 25
    shown = {path.name for path in Path("experiment/x/maps-dataset_train_train_noise.csv").iterdir()}
    assert shown == {f"3-{kind}_{number}.png" for kind in ("restored", "log_scale") for number in (1, 2, 3)}
    assert image.size(next(Path("experiment/x/maps-dataset_train_train_noise.csv").glob("*restored_1.png"))) == (40, 48)


def test_a_range_of_noise_is_drawn(place):
    """Every crop has another noise level from the whole range; the same seed gives the same levels."""
    from contract import Item
    from data import loader
    from data.source import View
    path = save(place / "flat.png", photo(64, 64, 0) * 0 + 128)
    items = [Item("flat", {"input": View(path, "drawn noise", (0, 40)), "image": path})]
    samples = [loader.Images(items, ("image",), seed=1, patch_size=64)[(1, position, 0)] for position in range(40)]
    levels = [float((sample.input - sample.targets["image"]).std() * 255) for sample in samples]
    assert min(levels) < 5 and max(levels) > 35 and all(sample.targets["image"].unique().numel() == 1 for sample in samples)
    again = loader.Images(items, ("image",), seed=1, patch_size=64)[(1, 3, 0)]
    assert torch.equal(again.input, samples[3].input)


def test_balanced_sets_are_drawn_alike():
    """Each set is drawn equally often, whatever its size."""
    from data.loader import Draws
    draws = Draws([list(range(100)), [100, 101], [102]], batch_size=3, steps=100, seed=1)
    drawn = [index for batch in draws for _, _, index in batch]
    counts = [sum(index < 100 for index in drawn), sum(index in (100, 101) for index in drawn), sum(index == 102 for index in drawn)]
    assert sum(counts) == 300 and min(counts) > 80
    assert len({index for index in drawn if index < 100}) > 80   # no image is drawn twice before all have been drawn once
