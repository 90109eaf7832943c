"""Which teacher of the two-stage method teaches which data set: by position or by name."""
from pathlib import Path

import pytest

import model
import option
from model import weights
from model.two_stage_kd import _in_order
from runtime import files
from runtime.errors import UserError
from tests.conftest import make_pairs
from tests.test_systems import KD, SHORT

SETS = ["meta/train/haze.json", "meta/train/rain.json", "meta/train/snow.json"]


@pytest.fixture
def teachers(place) -> list[str]:
    """Write two data sets, and the files of two teachers that state the data on which they were trained."""
    args = option.parse(["--model", "two_stage_kd", "--data_train", "x", *KD[:4]])
    for name in "AB":
        make_pairs(place / "dataset" / name, 3)
        files.write_tensors(Path(f"{name}.pt"), weights.model_content(model.build(args), args, {"data_train": name}))
    return ["--model", "two_stage_kd", "--data_train", "A+B", *KD, *SHORT, "--save", "kd", "--no-audit", "--no-report", "--teachers"]


def test_each_pair_is_printed(run, teachers):
    """The order of the command line holds; a teacher of other data is named, and training continues."""
    status, text = run(*teachers, "B.pt", "A.pt")
    assert status == 0, text
    assert "teacher B.pt → data set A\n" in text
    assert "teacher A.pt → data set B\n" in text
    assert "warning: the teacher B.pt was trained on B, not on A" in text
    assert "warning: the teacher A.pt was trained on A, not on B" in text
    assert "teacher B.pt → data set A\n" in Path("experiment/kd/log.txt").read_text()


def test_teachers_by_name(run, teachers):
    status, text = run(*teachers, "B=B.pt", "A=A.pt")
    assert status == 0, text
    assert "teacher A.pt → data set A\nteacher B.pt → data set B\n" in text
    assert "warning" not in text


@pytest.mark.parametrize("given, words", [
    (["A=A.pt", "C=B.pt"], "--teachers C=B.pt: no data set of the training has this name; the names are A, B"),
    (["A=A.pt", "B.pt"], "--teachers A=A.pt B.pt: give one NAME=FILE for each data set (A, B), or files without names"),
    (["A=A.pt", "A=B.pt"], "--teachers A=A.pt A=B.pt: give one NAME=FILE for each data set (A, B), or files without names"),
    (["A=A.pt"], "there are 1 --teachers for 2 sets (A, B)"),
    (["A=A.pt", "B=no.pt"], "--teachers: the file no.pt does not exist"),
    (["A=", "B=B.pt"], "give one NAME=FILE for each data set (A, B)"),
])
def test_teachers_that_fit_no_data_set(fails, teachers, given, words):
    assert words in fails(*teachers, *given)
    assert not Path("experiment/kd").exists()


def test_names_of_lists(place):
    """A list is named by its path or by its file name without the extension, if no other list has the same."""
    files = ["r", "h", "s"]
    assert _in_order(SETS, files) == files
    assert _in_order(SETS, ["rain=r", "haze=h", "meta/train/snow.json=s"]) == ["h", "r", "s"]
    assert _in_order(["a/x.json", "b/x.json"], ["b/x.json=2", "a/x.json=1"]) == ["1", "2"]
    with pytest.raises(UserError, match=r"the names are a/x\.json, b/x\.json"):
        _in_order(["a/x.json", "b/x.json"], ["x=1", "x=2"])
    Path("rain=1.pt").touch()
    Path("sun=1.pt").touch()
    assert _in_order(["haze"], ["sun=1.pt"]) == ["sun=1.pt"]           # a file whose name has an equals sign
