"""The command line: stages, what wins, and one clear sentence for what cannot be."""
import json

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
    fold = option._fold([{"epochs": 250, "epoch_chg": "125-250"}, {"epochs": 10}])
    assert (fold["epochs"], fold["epoch_chg"]) == (10, "5-10")
    fold = option._fold([{"epochs": 250, "epoch_chg": "125-250"}, {"epochs": 10, "epoch_chg": "2-10"}])
    assert fold["epoch_chg"] == "2-10"
    assert option._fold([{"epochs": 250}, {"epoch_chg": "2-7"}])["epochs"] == 7


def test_recipe_template_config_and_command_line(place):
    assert option.parse([]).losses == ["1*L1+1*L1:mask"]                          # the paper's recipe
    assert option.parse(["--template", "demo"]).channels == 16
    (place / "args.json").write_text(json.dumps({"template": "", "channels": 24, "lr": 1}))
    assert option.parse(["--template", "demo", "--config", "args.json"]).channels == 24
    args = option.parse(["--template", "demo", "--config", "args.json", "--channels", "8"])
    assert (args.channels, args.lr, args.save) == (8, 1, "demo")


@pytest.mark.parametrize("text", ["0.5-0.9", "(0.5, 0.9)", "0.5,0.9", "0.5 0.9"])
def test_betas(text):
    assert option.parse(["--betas", text]).adam_betas == (0.5, 0.9)
    assert option.parse(["--betas", *text.split()]).adam_betas == (0.5, 0.9)


def test_test_sets_follow_the_training_sets():
    assert option.parse(["--data_train", "A+B"]).data_test == "A+B"


@pytest.mark.parametrize("flags, words", [
    ("--epoch 3", "unknown flag --epoch; did you mean --epochs?"),
    ("--lr fast", "argument --lr: 'fast' is not a number from 0 upwards"),
    ("--epochs 0", "'0' is not a whole number from 1 to 1000000000"),
    ("--gamma nan", "'nan' is not a number from 0 to 1"),
    ("--scale 2", "--scale is 1"),
    ("--model no_such_model", f"unknown model 'no_such_model' in --model; known: {', '.join(model.MODELS)}"),
    ("--template fast", "unknown template 'fast'; known: demo"),
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
    ("--decay 100,200", "--decay '100,200' is not a whole number from 1 to 1000000000, nor several"),
    ("--patch_size 64-48 --batch_size 2-3-4", "--patch_size has 2 values for 3 stages; give 1 or 3"),
    ("--epoch_chg 5-3 --patch_size 8-16", "--epoch_chg 5-3 does not rise"),
    ("--epoch_chg 5-8 --epochs 9", "the last being --epochs 9"),
    ("--save ../elsewhere", "--save '../elsewhere' would leave experiment/"),
    ("--save /tmp/x", "would leave experiment/"),
    ("--save .", "would leave experiment/"),
    ("--config none.json", "cannot read the flags in none.json"),
    ("--load none", "--load none: there is no experiment of that name"),
    ("--pre_train none.pt", "there is no file none.pt"),
    ("--n_colors 1", "invalid choice: 1"),
])
def test_what_cannot_be(place, flags, words):
    with pytest.raises(UserError) as error:
        option.parse(flags.split(" "))
    assert words in str(error.value)


@pytest.mark.parametrize("flags, words", [
    ({"channelz": 3}, "--config args.json sets an unknown flag 'channelz'"),
    ({"epochs": "many"}, "--config args.json: the flag 'epochs' cannot be 'many'"),
    ({"seed": 1.5}, "the flag 'seed' cannot be 1.5"),
    ({"lr": -1}, "the flag 'lr' cannot be"), ({"epochs": -1}, "the flag 'epochs' cannot be"),
    ({"channels": 0}, "the flag 'channels' cannot be"),
    ({"model": 3}, "unknown model '3'"),
    ({"chop": 1}, "the flag 'chop' cannot be 1"), ({"optimizer": "MUON"}, "the flag 'optimizer' cannot be 'MUON'"),
    ({"model": "none"}, "unknown model 'none'"), ([1], "holds no object of flags")])
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
