"""Complete runs of the command line on tiny data: written files, repeatability, and errors during training."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from data import image
from model import weights
from model.smgarn import SnowRemoval, from_official
from runtime import files
from tests.conftest import REPO, TINY, make_div2k, make_pairs, photo, save
from tests.parity import facts

LINE1 = "--scale 1 --patch_size 64 --save smgarn --ext sep_reset --save_results".split()
LINE2 = ("--data_test DIV2K --data_range 1-2000 --scale 1 --pre_train experiment/smgarn/model/model_best.pt --test_only "
         "--save_results --ext sep_reset").split()
SHORT = [*TINY[:6], *TINY[8:]]            # without --patch_size, which the paper's command contains


def numbers(folder: Path, name: str = "set") -> dict:
    return json.loads((folder / "metrics.json").read_text())[name]


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("scale", ["x1", "X1"])
def test_the_papers_two_lines(run, place, scale):
    make_div2k(place / "dataset" / "DIV2K", 12, scale)
    for again in range(2):
        status, text = run(*LINE1, *SHORT)
        assert status == 0, text
        assert "DIV2K: the last 1 of 12 images are held out for testing" in text
        assert ("is finished" in text) == bool(again)
        status, text = run(*LINE2, "--cpu")
        assert status == 0, text
        assert "130 of 130 tensors matched" in text
        results = sorted(path.name for path in Path("experiment/test/results-DIV2K").iterdir())
        assert results == [f"{n:04}.png" for n in range(12)]
        assert numbers(Path("experiment/test"), "DIV2K")["count"] == 12
    assert image.read(Path("experiment/test/results-DIV2K/0001.png")).shape == (56, 64, 3)


def test_what_a_run_leaves(trained):
    names = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    assert names == {"args.json", "config.txt", "log.txt", "log.jsonl", "metrics.json", "metrics-set.csv", "times.jsonl", "curves.png",
                     "curves.pdf", "cards-set.json", "report.html", "model/model_best.pt", "model/model_latest.pt", "model/state.pt"}
    result = numbers(trained)
    assert result["count"] == 1 and 0 < result["psnr"] < 60 and -1 <= result["ssim"] <= 1
    assert result["protocol"]["name"] == "default" and result["precision"] == "single"
    assert result["subset"] == "1 of 4: 03 … 03" and result["interval95"]["psnr"] == [result["psnr"]] * 2
    epoch = next(r for r in records(trained) if r["event"] == "epoch")
    assert set(epoch["losses"]) == {"loss", "L1", "L1:mask"}
    assert epoch["losses"]["loss"] == pytest.approx(epoch["losses"]["L1"] + epoch["losses"]["L1:mask"], rel=1e-5)
    assert "stage 1: epochs 1-1, 2 steps each, patch 16, batch 2" in (trained / "log.txt").read_text()


def test_restored_images_are_the_measured_ones(run, trained):
    """The PSNR of the saved image equals metrics.json; the sheet shows input, result and ground truth side by side."""
    run("--test_only", "--pre_train", trained / "model/model_best.pt", "--save_results", "--save_gt", "--cpu")
    result = numbers(Path("experiment/test"))
    picture = image.read(Path("experiment/test/results-set/03.png")).astype(float)
    truth = image.read(Path("dataset/set/target/03.png"))
    assert 10 * np.log10(255**2 / np.mean((picture - truth) ** 2)) == pytest.approx(result["psnr"], abs=1e-6)
    sides = image.read(Path("experiment/test/compare-set/03.png"))
    assert np.array_equal(sides[:, 48:96], picture) and np.array_equal(sides[:, 96:], truth)


def test_two_runs_give_the_same_numbers(run, trained):
    assert run("--data_train", "set", "--save", "y", *TINY, "--n_threads", "2", "--ext", "img")[0] == 0
    weights = [files.read_tensors(f"experiment/{name}/model/model_best.pt")["state"] for name in "xy"]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert numbers(trained)["psnr"] == numbers(Path("experiment/y"))["psnr"]


def test_training_raises_psnr(run, place):
    """A small SMGARN removes most of a veil from images that it was not trained on."""
    make_pairs(place / "dataset" / "veil", 8, size=(48, 48))
    status, text = run("--data_train", "veil", "--save", "x", "--channels", "8", "--loss", "1*L1", "--lr", "3e-3", "--epochs", "1",
                       "--test_every", "120", "--batch_size", "4", "--patch_size", "24", "--n_threads", "0", "--cpu",
                       "--schedule", "cosine", "--data_range", "1-6/7-8")
    assert status == 0, text
    result = numbers(Path("experiment/x"), "veil")
    assert result["psnr"] > result["input_psnr"] + 4, text


def test_going_on_equals_going_through(run, pairs):
    """Two epochs in one run and one epoch resumed for a second give the same weights, with EMA and a schedule."""
    flags = ["--data_train", "set", *TINY, "--ema", "0.9", "--val_epochs", "2", "--decay", "1", "--save_models"]
    assert run(*flags, "--save", "whole", "--epochs", "2")[0] == 0
    assert run(*flags, "--save", "parts", "--epochs", "1")[0] == 0
    assert run("--load", "parts", "--epochs", "2")[0] == 0
    whole, parts = (files.read_tensors(f"experiment/{name}/model/model_latest.pt")["state"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert run("--save", "parts", "--resume", "1", "--epochs", "2")[0] == 0          # from the kept epoch 1
    assert [r["epoch"] for r in records(Path("experiment/parts")) if r["event"] == "epoch"] == [1, 2]


def test_resume_auto_starts_where_there_is_nothing(run, pairs):
    assert run("--data_train", "set", "--save", "x", "--resume", "auto", *TINY)[0] == 0
    status, text = run("--data_train", "set", "--save", "x", "--resume", "auto", *TINY, "--epochs", "2")
    assert status == 0 and "resuming after epoch 1" in text


def test_config_runs_again(run, trained):
    assert run("--config", trained / "args.json", "--save", "y")[0] == 0
    assert numbers(Path("experiment/y"))["psnr"] == numbers(trained)["psnr"]


def test_reset_empties_the_experiment_and_keeps_the_cache(run, trained_here):
    (trained_here / "old.txt").write_text("old")
    cached = {path: path.stat().st_mtime_ns for path in Path("dataset/bin").rglob("*.npy")}
    assert cached
    assert run("--data_train", "set", "--save", "x", "--reset", *TINY)[0] == 0
    assert not (trained_here / "old.txt").exists()
    assert {path: path.stat().st_mtime_ns for path in Path("dataset/bin").rglob("*.npy")} == cached


def test_a_test_leaves_a_training_alone(run, trained):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file() and "log" not in path.name
              and path.name != "times.jsonl"}
    before.pop(trained / "metrics.json")
    before.pop(trained / "report.html")
    make_pairs(Path("dataset/other"), 1)
    assert run("--save", "x", "--test_only", "--pre_train", trained / "model/model_best.pt", "--data_test", "other",
               "--cpu", "--reset")[0] == 0
    assert all(path.read_bytes() == content for path, content in before.items())
    assert {"set", "other"} == set(json.loads((trained / "metrics.json").read_text()))


def test_load_tests_an_experiment(run, trained):
    status, text = run("--load", "x", "--test_only", "--cpu")
    assert status == 0 and "model_best.pt (own file)" in text


def test_folder_of_pictures(run, trained):
    """Images of all types without ground truth keep their size; --chop and --self_ensemble work on them."""
    grey = photo(30, 21, 1)[..., 0]
    save(Path("pictures/grey.png"), grey)
    save(Path("pictures/alpha.png"), np.dstack([photo(17, 30, 2), photo(17, 30, 3)[..., 0]]))
    save(Path("pictures/deep.png"), grey.astype(np.uint16) * 257)
    save(Path("pictures/twin.jpg"), photo(16, 16, 4))
    save(Path("pictures/twin.bmp"), photo(16, 16, 4))
    Path("pictures/Thumbs.db").write_bytes(b"x")
    for name in ("Demo", "Folder"):
        status, text = run("--test_only", "--pre_train", trained / "model/model_best.pt", "--data_test", name, "--dir_demo", "pictures",
                           "--save_results", "--chop", "--tile", "24", "--self_ensemble", "--cpu")
        assert status == 0, text
        sizes = {path.name: image.size(path) for path in Path("experiment/test/results-pictures").iterdir()}
        assert sizes == {"grey.png": (30, 21), "alpha.png": (17, 30), "deep.png": (30, 21),
                         "twin.png": (16, 16), "twin_2.png": (16, 16)}


def test_released_weights(run, pairs):
    """A released file whose keys start with module. and are nested under state_dict is recognised and fully matched."""
    ours = SnowRemoval(channels=4).network.state_dict()
    theirs = [key for key, _ in facts("smgarn")["state_dict"]]
    names = from_official({key: key for key in theirs})                 # ours -> theirs
    torch.save({"state_dict": {f"module.{names[key]}": value for key, value in ours.items()}}, "released.pth")
    status, text = run("--test_only", "--pre_train", "released.pth", "--channels", "4", "--data_test", "set", "--cpu")
    assert status == 0 and "(released file): 130 of 130 tensors matched" in text


def test_python_call(run, trained):
    """A model file is sufficient to restore an image."""
    method = weights.load(trained / "model/model_best.pt")
    with torch.inference_mode():
        restored = method.restore(image.to_tensor(photo(30, 20, 0))[None])
    assert image.to_array(restored[0]).shape == (30, 20, 3)


@pytest.mark.parametrize("flags", [("--precision", "bf16"), ("--precision", "half", "--test_precision", "half"),
                                   ("--split_batch", "2", "--gclip", "0.1"), ("--optimizer", "sgd"), ("--optimizer", "RMSprop"),
                                   ("--optimizer", "AdamW", "--weight_decay", "1e-4", "--schedule", "cosine", "--warmup", "0.5"),
                                   ("--test_every", "0", "--no_augment", "--n_threads", "1"),
                                   ("--patch_size", "16-24", "--epochs", "2", "--loss", "1*L1 / 1*MSE+1*Charbonnier:mask")])
def test_flags_that_change_the_training(run, pairs, flags):
    status, text = run("--data_train", "set", "--save", "x", *TINY, *flags)
    assert status == 0, text


def test_split_batch_equals_the_whole(run, pairs):
    for parts in ("1", "2"):
        assert run("--data_train", "set", "--save", parts, *TINY, "--split_batch", parts)[0] == 0
    one, two = (files.read_tensors(f"experiment/{n}/model/model_latest.pt")["state"] for n in "12")
    assert all(torch.allclose(one[key], two[key], atol=1e-5) for key in one)


def test_skipped_steps(run, pairs, fails):
    sentence = fails("--data_train", "set", "--save", "x", *TINY, "--lr", "1e30", "--optimizer", "SGD", "--test_every", "200", status=1)
    assert "the last good state and weights are kept" in sentence


def test_a_training_without_a_step(run, pairs, fails):
    """In half precision a training may begin with skipped steps, but not consist of them."""
    flags = ["--data_train", "set", *TINY, "--model", "nafnet", "--blocks", "1/1/1", "--precision", "half", "--loss", "1e5*L1",
             "--test_every", "1", "--val_epochs", "20"]
    assert "all 1 steps of epoch 1 were skipped" in fails(*flags, "--save", "x", status=1)
    assert run(*flags, "--save", "y", "--epochs", "20")[0] == 0


def test_lists(run, place):
    status, text = run("--list")
    assert status == 0
    for name in ("smgarn", "demo", "L1", "Charbonnier", "DIV2K", "DemoSnow"):
        assert f"\n  {name} " in text


def test_readme_has_the_commands_of_the_paper():
    text = (REPO / "README.md").read_text()
    assert "make demo" in text and "make test" in text
    assert "python main.py " + " ".join(LINE1) in text and "python main.py " + " ".join(LINE2) in text



def test_what_was_not_trained_on_is_tested_later_too(run, place):
    """A single --data_range selects the training images; all others are tested, also if the model file is tested later."""
    make_pairs(place / "dataset" / "set", 6)
    assert run("--data_train", "set", "--data_range", "1-4", "--loss", "1*L1", "--save", "x", *TINY)[0] == 0
    assert numbers(Path("experiment/x"))["count"] == 2
    for flags in (("--pre_train", "experiment/x/model/model_best.pt"), ("--load", "x")):
        status, text = run("--test_only", *flags, "--cpu")
        assert status == 0 and "set: 2 images (2 of 6: 04 … 05)" in text, text
    status, text = run("--test_only", "--load", "x", "--data_test", "Folder", "--dir_demo", "dataset/set/input")
    assert status == 0 and "input: 6 images" in text


def test_only_this_tests_pictures_stay(run, trained):
    for positions, count in (("1-3", 3), ("4-4", 1)):
        assert run("--test_only", "--pre_train", trained / "model/model_best.pt", "--data_test", "set", "--data_range", positions,
                   "--save_results", "--cpu")[0] == 0
        assert len(list(Path("experiment/test/results-set").iterdir())) == count


def test_resume_takes_the_optimiser_flags_that_are_typed(run, trained):
    assert run("--load", "x", "--epochs", "2", "--betas", "0.5 0.6", "--weight_decay", "0.25")[0] == 0
    group = files.read_tensors(trained / "model/state.pt")["optimizer"]["param_groups"][0]
    assert (group["betas"], group["weight_decay"]) == ((0.5, 0.6), 0.25)


def test_one_bad_step_is_skipped(run, pairs, monkeypatch):
    """A step whose loss is not finite is skipped; the training continues, also in the next epoch."""
    import loss
    real, calls = loss.Loss.forward, []

    def forward(self, prediction, batch):
        calls.append(1)
        total, parts = real(self, prediction, batch)
        return (total * float("nan") if len(calls) == 2 else total), parts
    monkeypatch.setattr(loss.Loss, "forward", forward)
    status, text = run("--data_train", "set", "--save", "x", *TINY, "--epochs", "2")
    assert status == 0 and text.count("is skipped") == 1, text
    assert "NaN" not in Path("experiment/x/log.jsonl").read_text()


def test_several_protocols_in_one_test(run, trained):
    status, text = run("--test_only", "--pre_train", trained / "model/model_best.pt", "--data_test", "set", "--cpu",
                       "--protocol", "smgarn+promptir+y_truncated")
    assert status == 0, text
    result = numbers(Path("experiment/test"))
    assert result["protocol"]["border"] == 7 and [other["protocol"]["name"] for other in result["others"]] == ["promptir", "y_truncated"]
    lines = Path("experiment/test/metrics-set.csv").read_text().splitlines()
    assert lines[0].startswith("image,protocol,psnr,ssim,input_psnr") and len(lines) == 1 + 3
