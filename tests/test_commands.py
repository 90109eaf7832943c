"""Every right-hand side of the README's table 'Paper command → ours' runs, on tiny data and shortened."""
import json
import re
import shlex
from pathlib import Path

import pytest

import model
import option
from model import weights
from runtime import files
from tests.conftest import REPO, make_div2k, make_pairs, photo, save, veiled
from tests.test_systems import PLAIN

ROWS = re.findall(r"^\| (.+?) \| `python main\.py (.+?)` \|$", (REPO / "README.md").read_text(), re.MULTILINE)
SHORT = ["--test_every", "1", "--batch_size", "2", "--n_threads", "0", "--cpu"]
SMALLER = {"smgarn": ["--channels", "4"], "sapnet": PLAIN["sapnet"], "dsrir": PLAIN["dsrir"],
           "rain2avoid": ["--channels", "4", "--sdr_num", "3"],
           "two_stage_kd": ["--channels", "4", "--blocks", "1", "--loss",
                            "1*L1:image:teacher_image+1*L1:projected:teacher_projected / 1*L1"]}
PATCH = {"smgarn": [], "sapnet": ["--patch_size", "24"], "dsrir": ["--patch_size", "32"], "two_stage_kd": ["--patch_size", "32"],
         "rain2avoid": ["--patch_size", "32"]}


def one_folder(root: Path) -> None:
    """Pairs norain-N and rain-N in one folder."""
    for number in (1, 2, 3):
        save(root / f"norain-{number}.png", photo(40, 48, number))
        save(root / f"rain-{number}.png", veiled(photo(40, 48, number)))


@pytest.fixture
def data(place) -> Path:
    """All that the table's commands read, tiny."""
    root = place / "dataset"
    make_div2k(root / "DIV2K")
    one_folder(root / "RainTrainH")
    for name in ("Rain100H", "Rain100L", "Rain12"):
        make_pairs(root / name, 2)
    for number in range(3):
        save(root / "BSD400" / f"{number}.png", photo(40, 48, number))
        save(root / "CBSD68" / f"{number}.png", photo(40, 48, number))
    lines = {"noise": "BSD400/{0}.png,BSD400/{0}.png\n", "rain": "RainTrainH/norain-{1}.png,RainTrainH/rain-{1}.png\n"}
    lists = {name: "".join(line.format(n, n + 1) for n in range(3)) for name, line in lines.items()}
    lists |= {"haze": lists["rain"], "all_in_one": lists["noise"] + lists["rain"]}
    for name, text in lists.items():
        files.write_text(files.folder(root / "train") / f"train_{name}.csv", text)
    for part in ("train", "valid"):
        for name in ("a", "b", "c"):
            pairs = [[f"dataset/Rain100L/{kind}/0{n}.png" for kind in ("target", "input")] for n in range(2)]
            files.write_json(files.folder(place / "meta" / part) / f"{name}.json", pairs)
    args = option.parse(["--model", "two_stage_kd", "--data_train", "x", *SMALLER["two_stage_kd"][:4]])
    for name in "ABC":
        files.write_tensors(Path(f"{name}.pt"), weights.model_content(model.build(args), args, {}))
    save(place / "pictures" / "photo.jpg", photo(40, 48, 1))
    return place


def test_the_table_is_whole():
    papers = [row.partition(",")[0] for row, _ in ROWS]
    assert {paper: papers.count(paper) for paper in papers} == {"SMGARN": 2, "SAPNet": 2, "DSRIR": 8, "Rain2Avoid": 6, "two-stage": 2}


@pytest.mark.slow
def test_every_command(run, data):
    """One after the other, as someone who follows the table: what one trains, another tests."""
    for paper, command in ROWS:
        flags = shlex.split(command)
        name = flags[flags.index("--model") + 1] if "--model" in flags else model.DEFAULT
        epochs = ["--epochs", "4" if name == "dsrir" else "2"]
        extra = ["--cpu", "--n_threads", "0"] if "--test_only" in flags else [*SHORT, *epochs, *SMALLER[name], *PATCH[name]]
        status, text = run(*flags, *extra)
        assert status == 0, f"{paper}: {text}"
    assert set(json.loads(Path("experiment/dsrir/metrics.json").read_text())) == {"CBSD68@15", "CBSD68@25", "CBSD68@50", "Rain100L"}
    assert Path("experiment/test/results-Folder/photo.png").is_file()
