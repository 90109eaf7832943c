"""The command line: training stages, precedence of sources, and one clear sentence for invalid input."""
import json
import shlex
from pathlib import Path
from types import ModuleType

import pytest

import model
import option
from model.method import Method
from runtime.errors import UserError


def stages(*flags: str) -> list[tuple]:
    args = option.parse(list(flags))
    return [tuple(vars(stage).values())[:4] for stage in Method.stages(None, args)]


def test_one_value_holds_for_every_stage():
    assert stages("--patch_size", "64-96", "--epochs", "10", "--loss", "1*L1") == [
        (5, "1*L1", 64, 16), (5, "1*L1", 96, 16)]
    assert stages("--loss", "1*L1 / 1*MSE", "--batch_size", "8-4", "--epochs", "9") == [
        (4, "1*L1", 64, 8), (5, "1*MSE", 64, 4)]


@pytest.mark.parametrize("flags", [("--epoch_chg", "2-6-8"), ("--epoch_chg", "2", "6", "8")])
def test_borders(flags):
    assert [stage[0] for stage in stages(*flags, "--patch_size", "8-16-32")] == [2, 4, 2]


def test_epochs_scale_the_borders_of_a_recipe():
    kd = ["--model", "two_stage_kd", "--data_train", "x"]                         # 250 epochs; the first stage ends at epoch 125
    for flags, epochs, ends, warmup, origin in (
            (["--epochs", "10"], 10, "5-10", 0.12, "typed, follows from --epochs"),
            (["--epochs", "10", "--epoch_chg", "2-10", "--warmup", "1"], 10, "2-10", 1, "typed"),
            (["--epoch_chg", "2-7"], 7, "2-7", 3, "typed")):
        args = option.parse([*kd, *flags])
        assert (args.epochs, args.epoch_chg, args.origin["epoch_chg"]) == (epochs, ends, origin)
        assert args.warmup == pytest.approx(warmup)
    assert args.origin["epochs"] == "typed, follows from --epoch_chg" and args.origin["warmup"] == "recipe two_stage_kd"


@pytest.mark.parametrize("epochs, ends", [("1", "1-1-1-1"), ("2", "1-2-2-2"), ("4", "1-2-3-4"), ("5", "2-3-4-5"),
                                          ("347", "135-238-314-347")])
def test_each_stage_has_an_epoch(epochs, ends):
    """Few epochs shorten the stages of a recipe to one epoch each; fewer than that belong to the first stages."""
    args = option.parse(["--model", "dsrir", "--data_train", "x", "--epochs", epochs])
    assert (args.epoch_chg, sum(stage.epochs for stage in args.stages)) == (ends, int(epochs))


def test_stages_without_borders_have_an_epoch():
    assert [stage[0] for stage in stages("--patch_size", "8-16-32", "--epochs", "3")] == [1, 1, 1]
    assert [stage[0] for stage in stages("--patch_size", "8-16-32", "--epochs", "1")] == [1, 0, 0]


def test_recipe_template_config_and_command_line(place):
    assert [stage.loss for stage in option.parse([]).stages] == ["1*L1+1*L1:mask"]                          # the paper's recipe
    assert option.parse(["--template", "demo"]).channels == 16
    (place / "args.json").write_text(json.dumps({"template": "", "channels": 24, "lr": 1}))
    assert option.parse(["--template", "demo", "--config", "args.json"]).channels == 24
    args = option.parse(["--template", "demo", "--config", "args.json", "--channels", "8"])
    assert (args.channels, args.lr, args.save) == (8, 1, "demo")


@pytest.mark.parametrize("text", ["0.5-0.9", "(0.5, 0.9)", "0.5,0.9", "0.5 0.9"])
def test_betas(text):
    assert option.parse(["--betas", text]).betas == (0.5, 0.9)
    assert option.parse(["--betas", *text.split()]).betas == (0.5, 0.9)


def test_what_texts_mean():
    """args holds the converted value of a flag, args.flags the text that args.json stores."""
    args = option.parse(["--betas", "0.5", "0.9", "--sigma", "0-55", "--decay", "3-5", "--data_range", "1-5/7-8", "--metrics", "ms_ssim",
                         "--chop", "--tile_overlap", "300"])
    assert (args.betas, args.sigma, args.decay, args.metrics) == ((0.5, 0.9), (0, 55), [3, 5], ("ms_ssim",))
    assert args.data_range == {"train": (1, 5), "test": (7, 8)} and (args.tile, args.tile_overlap) == (512, 256)
    assert [args.flags[name] for name in ("betas", "sigma", "decay", "metrics", "data_range", "tile", "tile_overlap")] == [
        "0.5 0.9", "0-55", "3-5", "ms_ssim", "1-5/7-8", "auto", 300]
    assert option.parse(["--data_range", "1-5"]).data_range == {"train": (1, 5)}
    assert option.parse(["--data_range", "1-5", "--test_only"]).data_range == {"train": (1, 5), "test": (1, 5)}
    tested = option.parse(["--data_range", "1-5", "--test_only"]).flags
    assert tested["data_range"] == "1-5/1-5"                             # so that --config of its args.json tests the same images
    assert option.parse([]).tile is None and option.parse(["--tile", "64"]).tile == 64 and option.parse([]).sigma is None


def test_other_data_sets_drop_an_inherited_range(place):
    (place / "args.json").write_text(json.dumps({"data_train": "A", "data_range": "1-5"}))
    for flags, expected in (((), {"train": (1, 5)}), (("--data_train", "A"), {"train": (1, 5)}), (("--data_train", "B"), {}),
                            (("--data_test", "B"), {}), (("--data_train", "B", "--data_range", "1-2"), {"train": (1, 2)})):
        assert option.parse(["--config", "args.json", *flags]).data_range == expected


def test_test_sets_follow_the_training_sets():
    assert option.parse(["--data_train", "A+B"]).data_test == "A+B"


@pytest.mark.parametrize("flags, words", [
    ("--epoch 3", "unknown flag --epoch; did you mean --epochs?"),
    ("--lr fast", "argument --lr: 'fast' is not a number from 0 upwards"),
    ("--epochs 0", "'0' is not a whole number from 1 to 1000000000"),
    ("--gamma nan", "'nan' is not a number from 0 to 1"),
    ("--scale 2", "--scale is 1"),
    ("--model no_such_model", f"unknown model 'no_such_model' in --model; known: {', '.join(model.MODELS)}"),
    ("--template fast", "unknown template 'fast'; known: "),
    ("--loss 1*L2", "unknown loss 'L2' in --loss '1*L2'; known: L1, MSE, Charbonnier"),
    ("--loss L1", "'L1' is not weight*Type"),
    ("--loss 1*L1+", "'' is not weight*Type"),
    ("--loss inf*L1", "'inf*L1' is not weight*Type"),
    ("--loss 1*L1:a:b:c", "is not weight*Type"),
    ("--data_range 5", "--data_range '5' is not first-last"),
    ("--data_range 5-1", "is not first-last"),
    ("--data_range 0-5", "positions from 1"),
    ("--data_range 1-2/3-4/5-6", "is not first-last"),
    ("--betas 0.9", "--betas '0.9' is not two numbers"),
    ("--betas 0.9 1.5", "is not two numbers from 0 to below 1"),
    ("--decay 100,200", "--decay '100,200' is not a whole number from 1 to 1000000000 or several"),
    ("--patch_size 64-48 --batch_size 2-3-4", "--patch_size has 2 values for 3 stages; give 1 or 3"),
    ("--epoch_chg 5-3 --patch_size 8-16", "--epoch_chg 5-3 must rise"),
    ("--epoch_chg 5-8 --epochs 9", "the last one must equal --epochs 9"),
    ("--save ../elsewhere", "--save '../elsewhere' is not inside experiment/"),
    ("--save /tmp/x", "is not inside experiment/"),
    ("--save .", "is not inside experiment/"),
    ("--save .locks", "'.locks' begins with a dot"),
    ("--save x/.locks", "begins with a dot"),
    (f"--save {'a' * 300}", "is too long; a name has at most 200 bytes"),
    (f"--save {'x/' * 1800}x", "is too long; a name has at most 200 bytes"),
    ("--config none.json", "cannot read the flags in none.json"),
    ("--load none", "--load none: no experiment of that name exists"),
    ("--pre_train none.pt", "the file none.pt does not exist"),
    ("--n_colors 1", "invalid choice: 1"),
])
def test_what_cannot_be(place, flags, words):
    with pytest.raises(UserError) as error:
        option.parse(flags.split(" "))
    assert words in str(error.value)


@pytest.mark.parametrize("flags, words", [
    ({"channelz": 3}, "config args.json sets an unknown flag 'channelz'"),
    ({"epochs": "many"}, "config args.json: the flag 'epochs' cannot be 'many'"),
    ({"seed": 1.5}, "the flag 'seed' cannot be 1.5"),
    ({"lr": -1}, "the flag 'lr' cannot be"), ({"epochs": -1}, "the flag 'epochs' cannot be"),
    ({"channels": 0}, "the flag 'channels' cannot be"),
    ({"model": 3}, "unknown model '3'"),
    ({"chop": 1}, "the flag 'chop' cannot be 1"), ({"optimizer": "MUON"}, "the flag 'optimizer' cannot be 'MUON'"),
    ({"model": "none"}, "unknown model 'none'"), ([1], "does not contain a JSON object of flags")])
def test_broken_config(place, flags, words):
    (place / "args.json").write_text(json.dumps(flags))
    with pytest.raises(UserError, match=words):
        option.parse(["--config", "args.json"])


def test_help_is_grouped(capsys):
    with pytest.raises(SystemExit):
        option.parse(["--help"])
    text = capsys.readouterr().out
    for group in ("model", "data", "training", "optimisation", "test and restore", "experiment", "hardware", "smgarn"):
        assert f"\n{group}:\n" in text


def explained(run, *flags: str) -> dict[str, str]:
    """Return the output of --explain as {flag and value: source}; check that its columns are aligned."""
    status, text = run(*flags, "--explain")
    assert status == 0
    rows = [line.partition("   ") for line in text.splitlines()]
    starts = {len(line) - len(source.lstrip()) for line, (flag, _, source) in zip(text.splitlines(), rows) if len(flag) <= option.COLUMN}
    assert len(starts) == 1
    return {flag: source.strip() for flag, _, source in rows}


@pytest.mark.parametrize("name", model.MODELS)
def test_explain_works_for_every_model(run, place, name):
    """Each flag that differs from its built-in default is printed once, and the printed flags, when typed, give the same values."""
    rows = explained(run, "--model", name, "--data_train", "A", "--n_threads", "1", "--no-audit", "--dir_demo", "my photos")
    assert rows["--n_threads 1"] == rows["--no-audit"] == rows["--dir_demo 'my photos'"] == "typed"
    assert any(source == f"recipe {name}" for source in rows.values())
    typed = shlex.split(" ".join(rows))
    expected = option.parse(["--model", name, "--data_train", "A", "--n_threads", "1", "--no-audit", "--dir_demo", "my photos"])
    assert option.parse(typed).flags == expected.flags
    assert list(place.iterdir()) == []


def test_explain_names_the_source_of_each_value(run, trained):
    """Template, config, model file and experiment are named as sources; typed flags override them."""
    assert explained(run, "--template", "demo", "--lr", "3")["--lr 3.0"] == "typed"
    rows = explained(run, "--template", "demo")
    assert rows["--lr 0.002"] == rows["--channels 16"] == "template demo" and rows["--gclip_norm 0.01"] == "recipe nafnet"
    rows = explained(run, "--config", "experiment/x/args.json", "--template", "smgarn_small", "--save", "y")
    assert rows["--channels 4"] == "config experiment/x/args.json" and rows["--save y"] == "typed" and "--lr 0.002" not in rows
    best = "experiment/x/model/model_best.pt"
    rows = explained(run, "--pre_train", best, "--data_train", "set", "--save", "y")
    assert rows["--channels 4"] == f"file {best}" and rows["--data_test set"] == "typed, follows from --data_train"
    rows = explained(run, "--load", "x")
    assert rows["--channels 4"] == rows["--data_train set"] == rows["--save x"] == "experiment/x/args.json"
    rows = explained(run, "--load", "x", "--test_only")
    assert rows[f"--pre_train {best}"] == "best weights of experiment/x" and rows["--test_only"] == "typed"


def test_core_flags_are_frozen():
    """Adding, renaming or removing a core flag by accident changes the command line and the format of args.json."""
    listed = Path(__file__).with_name("core_flags.txt").read_text(encoding="utf-8").split()
    flags = sorted(name.removeprefix("--") for action in option.parser()._actions for name in action.option_strings[:1])
    added, lost = sorted(set(flags) - set(listed)), sorted(set(listed) - set(flags))
    assert not added and not lost, (
        f"the core's flags have changed: added {added}, missing {lost}. If this is intended, edit tests/core_flags.txt and add a line to "
        "CHANGELOG.md; a flag that is renamed or removed also needs an entry in RENAMED of runtime/experiment.py")
    assert listed == sorted(listed)


@pytest.mark.parametrize("flag, options, words", [
    ("--lr", {}, "the package model/mine adds the flag --lr, which already exists; rename it there"),
    ("--rate", {"dest": "lr"}, "the package model/mine adds a flag that is stored as args.lr, which already exists"),
    ("--stages", {}, "stored as args.stages, which already exists")])
def test_a_flag_of_a_model_that_the_core_has(flag, options, words):
    package = ModuleType("model.mine")
    package.add_arguments = lambda group: group.add_argument(flag, default=1, **options)
    with pytest.raises(UserError, match=words):
        option.parser(package)


def test_a_backbones_own_flags():
    """The flags of a backbone are typed as flags or in brackets; args.json stores them in brackets."""
    for typed in (["--backbone", "SAPNet", "--recurrent_iter", "3", "--no-use_dilation"],
                  ["--backbone", "sapnet(recurrent_iter=3, use_dilation=false)"]):
        args = option.parse(["--model", "rain2avoid", "--dir_demo", "x", *typed])
        assert args.flags["backbone"].lower() == "sapnet(recurrent_iter=3, use_dilation=false)"
    with pytest.raises(UserError, match="unknown flag --recurrent_iter"):
        option.parse(["--model", "rain2avoid", "--dir_demo", "x", "--recurrent_iter", "3"])
