"""Tests of the commands in the table 'Paper command and ours' of docs/README.md, shortened and on tiny data."""
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import model
import option
from model import external, weights
from runtime import files
from tests import small
from tests.conftest import REPO, make_div2k, make_pairs, photo, save, veiled
from tests.test_systems import PLAIN

ROWS = re.findall(r"^\| (.+?) \| `python main\.py (.+?)` \|$", (REPO / "docs/README.md").read_text(encoding="utf-8"), re.MULTILINE)
SMALLER = {"smgarn": ["--channels", "4"], "sapnet": PLAIN["sapnet"], "dsrir": PLAIN["dsrir"],
           "rain2avoid": ["--channels", "4", "--sdr_num", "3"],
           "two_stage_kd": ["--channels", "4", "--blocks", "1", "--loss",
                            "1*L1:image:teacher_image+1*L1:projected:teacher_projected / 1*L1"]}
SETS = ("Rain100H", "Rain12", "Rain1400", "Snow100K", "Snow100K-S", "Snow100K-M", "Snow100K-L", "CSD", "SOTS_outdoor", "Rain800")
WEATHERS = ("haze", "rain", "snow")


def one_folder(root: Path) -> None:
    """Write pairs norain-N and rain-N to one folder."""
    for number in (1, 2, 3):
        save(root / f"norain-{number}.png", photo(40, 48, number))
        save(root / f"rain-{number}.png", veiled(photo(40, 48, number)))


def make_everything(place: Path) -> Path:
    """Write tiny versions of everything that printed commands read: data sets, lists, teachers, folders of images."""
    root = place / "dataset"
    make_div2k(root / "DIV2K")
    one_folder(root / "RainTrainH")
    one_folder(root / "RainTrainL")
    make_pairs(root / "mine", 4, masks=True)
    make_pairs(root / "Rain100L", 4)
    for name in SETS:
        make_pairs(root / name, 2, masks=name == "Snow100K")
    for number in range(3):
        save(root / "BSD400" / f"{number}.png", photo(40, 48, number))
        save(root / "CBSD68" / f"{number}.png", photo(40, 48, number))
        for part in ("train", "test"):
            save(root / "BSDS500" / part / f"{number}.png", photo(40, 48, number))
    lines = {"noise": "BSD400/{0}.png,BSD400/{0}.png\n", "rain": "RainTrainH/norain-{1}.png,RainTrainH/rain-{1}.png\n"}
    lists = {name: "".join(line.format(n, n + 1) for n in range(3)) for name, line in lines.items()}
    lists |= {"haze": lists["rain"], "all_in_one": lists["noise"] + lists["rain"]}
    for name, text in lists.items():
        files.write_text(files.make_folder(root / "train") / f"train_{name}.csv", text)
    for part in ("train", "valid"):
        for name in WEATHERS:
            pairs = [[f"dataset/Rain100L/{kind}/0{n}.png" for kind in ("target", "input")] for n in range(2)]
            files.write_json(files.make_folder(place / "meta" / part) / f"{name}.json", pairs)
    for name in (*"ABC", *WEATHERS):
        write_weights(Path(f"{name}.pt"), "two_stage_kd")
    for name in ("pictures", "my_photos", "my_rainy_photos"):
        save(place / name / "photo.jpg", photo(40, 48, 1))
    save(place / "photo.jpg", photo(40, 48, 1))
    return place


def write_weights(path: Path, name: str, typed: tuple[str, ...] = ()) -> None:
    """Write a model file of a small network, changed by typed flags, with random weights."""
    args = option.parse(["--model", name, "--data_train", "x", *smaller(name), *typed])
    files.make_folder(path.parent)
    files.write_tensors(path, weights.model_content(model.build(args), args, {}))


def smaller(name: str) -> list[str]:
    """Return the flags for a small network and for a training that needs no other weights."""
    tiny = [part for key, value in model.package(name).TINY.items() if key != "pre_train" for part in (f"--{key}", str(value))]
    return SMALLER.get(name) or PLAIN.get(name) or tiny


def named(flags: list[str], flag: str, default: str = "") -> str:
    """Return the value of a flag."""
    return flags[flags.index(flag) + 1] if flag in flags else default


def shortened(flags: list[str]) -> list[str]:
    """Return the flags with additions for a short run: a small network, small patches, few steps, and existing positions."""
    template = named(flags, "--template")
    name = named(flags, "--model", model.templates()[template][0] if template else model.DEFAULT)
    extra = ["--cpu", "--n_threads", "0"]
    if "--data_range" in flags:
        extra += ["--data_range", "1-2/3-4" if "/" in named(flags, "--data_range") else "1-2"]
    if "--test_only" in flags or "--load" in flags:
        return [*flags, *extra]
    several = "-" in named(flags, "--patch_size")
    extra += ["--test_every", "1", "--batch_size", "2-2" if several else "2", "--patch_size", "16-32" if several else "32"]
    stages = {"dsrir": "4", "sapnet": "2", "two_stage_kd": "1" if template else "2"}.get(name, "1")
    extra += ["--epoch_chg", "1-2"] if "--epoch_chg" in flags else ["--epochs", stages]
    small = [] if named(flags, "--pre_train").startswith("zoo:") else smaller(name)         # the file states its network
    given = template or "--loss" in flags                    # in this case the loss is kept
    return [*flags, *(small[:small.index("--loss")] if given and "--loss" in small else small), *extra]


def place_code(path: str, name: str, arguments: str) -> None:
    """Write a file with the example network under another name, whose first argument is the one that a command gives."""
    text = Path(external.EXAMPLE.rpartition(":")[0]).read_text().replace("class Example", f"class {name}")
    files.make_folder(Path(path).parent)
    files.write_text(Path(path), text.replace("width", "dim") if '"dim"' in arguments else text)


def place_files(flags: list[str], run: Callable | None = None) -> None:
    """Write the files that a command reads and that another command would have written before.

    With `run`, an experiment that the command continues is trained. For MS-SSIM, images of sufficient size are written.
    """
    for flag in ("--arch", "--teacher_arch"):
        if flag in flags:
            place_code(*named(flags, flag).split(":"), named(flags, "--arch_args"))
    for word in flags:
        if re.search(r"\.(pth?|safetensors)$", word) and not Path(word).exists():
            name = named(flags, "--model", "external" if "--arch" in flags else model.DEFAULT)
            name = "external" if "--teacher_arch" in flags and word == named(flags, "--teacher") else name
            if name == "spandrel":
                small.write_foreign("DRUNet", word)
                continue
            typed = [(f"--{flag}", named(flags, f"--{flag}")) for flag in (*model.own_flags(name), *model.code_flags(name))
                     if f"--{flag}" in flags]
            write_weights(Path(word), name, sum(typed, ()))
    if "ms_ssim" in flags:
        make_pairs(Path("dataset/mine"), 4, size=(176, 180), masks=True)
    made = [Path(named(flags, "--config")).parent.name] if "--config" in flags else []
    made += [named(flags, "--load")] if "--load" in flags else []
    for name in made:
        foreign = ["--model", "external"] if "--arch" in flags else []
        training = shortened([*foreign, "--data_train", "mine", "--loss", "1*L1", "--save", name])
        if run:
            assert run(*training)[0] == 0
        else:
            files.write_json(files.make_folder(Path("experiment", name)) / "args.json", option.parse(training).flags)
            write_weights(Path("experiment", name, "model/model_best.pt"), *(foreign[1:] or [model.DEFAULT]))


@pytest.fixture
def data(place) -> Path:
    return make_everything(place)


def test_the_table_is_complete():
    papers = [row.partition(",")[0] for row, _ in ROWS]
    assert {paper: papers.count(paper) for paper in papers} == {"SMGARN": 2, "SAPNet": 2, "DSRIR": 8, "Rain2Avoid": 6, "two-stage": 2}


@pytest.mark.slow
def test_every_command(run, data):
    """The commands run in the order of the table, because later ones test what earlier ones trained."""
    for paper, command in ROWS:
        status, text = run(*shortened(shlex.split(command)))
        assert status == 0, f"{paper}: {text}"
    measured = set(json.loads(Path("experiment/dsrir/metrics.json").read_text()))
    assert measured == {"CBSD68@15", "CBSD68@25", "CBSD68@50", "Rain100L", "SOTS_outdoor"}
    assert Path("experiment/test/results-pictures/photo.png").is_file()
