"""Tests of tool.benchmark: equal budgets, equal data, a table, a page, and a stopped benchmark that continues."""
import json
import re
from pathlib import Path

import pytest

import option
from runtime.errors import UserError
from tests.conftest import make_pairs
from tool import benchmark

NETWORKS = ["nafnet --channels 4 --blocks 1/1/1", "unet --channels 4"]
SHARED = ["--data_train", "mine", "--patch_size", "16", "--batch_size", "2", "--n_threads", "0", "--no-audit"]


@pytest.fixture
def pairs(place) -> None:
    make_pairs(Path("dataset/mine"), 4)


def test_equal_steps(pairs, capsys):
    """All networks make the same steps on the same images; the table has them, and the same command does not train again."""
    benchmark.run([*NETWORKS, "--steps", "3", "--seeds", "2", *SHARED])
    folder = Path("experiment/benchmark")
    text = (folder / "benchmark-mine.md").read_text()
    assert "mine: 1 images, protocol default (RGB), input" in text
    for number, network in enumerate(NETWORKS, 1):
        values = [json.loads((folder / f"{number}-{seed}/metrics.json").read_text())["mine"]["psnr"] for seed in (1, 2)]
        mean, low, high = sum(values) / 2, min(values), max(values)
        row, = (line for line in text.splitlines() if line.startswith(f"| {network} |"))
        assert f"| 3 | {mean:.2f} ± {12.7062 * (high - low) / 2:.2f} ({low:.2f} to {high:.2f}) |" in row
        assert re.search(r"\| [\d,]+ \| \d+\.\d\d \| \d+ MiB \| \d+\.\d\d \|", row)
    flags = [json.loads((folder / f"{number}-1/args.json").read_text()) for number in (1, 2)]
    equal = ("data_train", "loss", "seed", "patch_size", "batch_size", "test_every", "epochs")
    assert [flags[0][key] for key in equal] == [flags[1][key] for key in equal] and flags[0]["test_every"] == 3
    assert (folder / "report-mine.html").is_file()
    logs = {path: path.read_bytes() for path in folder.glob("*-*/log.jsonl")}
    capsys.readouterr()
    benchmark.run([*NETWORKS, "--steps", "3", "--seeds", "2", *SHARED])
    assert "its speed is measured" not in capsys.readouterr().out
    assert len(logs) == 4 and all(path.read_bytes().count(b'"epoch"') == before.count(b'"epoch"') for path, before in logs.items())
    with pytest.raises(UserError, match="belongs to a benchmark with other networks or flags"):
        benchmark.run([*NETWORKS, "--steps", "4", "--seeds", "2", *SHARED])


@pytest.mark.parametrize("network", ["sapnet", "dsrir", "smgarn"])
def test_recipes_of_other_augmentation_noise_and_schedule(pairs, network):
    """Every system but Rain2Avoid, which has no pairs, can be compared: its learning rate falls within the budget."""
    own = benchmark.parse([NETWORKS[0], network, *SHARED])[0]
    shared = benchmark.checked(own, SHARED)
    args = option.parse(benchmark.command(network, shared, "x"))
    assert args.schedule == "cosine" and args.augment == "all" and not args.no_augment and not args.flags["sigma"]


def test_equal_minutes(pairs):
    """The steps of a network follow from its measured rate."""
    benchmark.run([NETWORKS[1], "--minutes", "0.005", "--seeds", "1", *SHARED, "--save", "b"])
    plan = json.loads(Path("experiment/b/plan.json").read_text())["measured"][NETWORKS[1]]
    assert plan["steps"] == max(int(0.3 * plan["rate"]), 1)


@pytest.mark.parametrize("flags, words", [
    ([NETWORKS[0], NETWORKS[0]], "a network is named twice"), (["nonsense"], "nonsense"),
    ([NETWORKS[0], "--seed", "3"], "the benchmark sets --seed itself"), ([NETWORKS[0], "--epochs=3"], "the benchmark sets --epochs itself"),
    ([NETWORKS[0], "unet --channles 4"], "--channles"), ([NETWORKS[0], "--minutes", "0"], "--minutes"),
    ([NETWORKS[0], "unet --augment mirror"], "'unet --augment mirror' has --augment mirror, "),
    ([NETWORKS[0], "unet --patch_size 8"], "'unet --patch_size 8' has --patch_size, which the command also has for all networks"),
    ([NETWORKS[0], "unet --dir_data other"], "has --dir_data other"), (["nafnet --data_test Demo", "unet"], "'unet' has --data_test "),
    ([NETWORKS[0], "unet --data_test Demo"], "has --data_test, which the command also has"),
    ([""], "the name of a network is empty"), (["unet 'x"], "cannot be read: No closing quotation"),
    ([NETWORKS[0], "unet --seed 5"], "the benchmark sets --seed itself"), (["rain2avoid"], "rain2avoid trains in its own way")])
def test_wrong_input(pairs, flags, words):
    """A wrong flag is found before anything is trained."""
    with pytest.raises(UserError, match=words):
        benchmark.run([*flags, *SHARED])
    assert not Path("experiment/benchmark").exists()
