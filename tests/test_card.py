"""Folders for model hubs: a model card states what files record and nothing else, and its head is YAML."""
import hashlib
import json
import re
from pathlib import Path

import pytest

import unweather
from data.licences import licence
from data.sets import DATASETS
from model import weights
from runtime import files
from tests.conftest import photo
from tests.test_export import make
from tests.test_export import tool as tool
from tool import card, portable

HOSTILE = ["x: y", "- [a]", '"', "#", "a\nlicense: mit", "---", "`|`", "<script>", "*", "&a", "!!python/object:x", "\u2028", "é☃", "\ud800",
           "\x7f\x1b[2J", "`" * 300, ""]


def head(text: str) -> dict:
    """Return the YAML head of a card as a YAML parser reads it."""
    yaml = pytest.importorskip("yaml")
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("\n---\n")[0])


def test_a_trained_model(tool, trained):
    """The card repeats the note of the file, the flags and the numbers of its experiment, and the licences of its data."""
    status, text = tool(str(trained / "model/model_best.pt"), "--safetensors", "--card", "--output", "hub")
    assert status == 0 and text.startswith("hub: model.safetensors and README.md: smgarn, "), text
    assert sorted(path.name for path in Path("hub").iterdir()) == ["README.md", "model.safetensors"]
    page, note = Path("hub/README.md").read_text(encoding="utf-8"), weights.read(trained / "model/model_best.pt").note
    numbers = json.loads((trained / "metrics.json").read_text())["set"]
    assert head(page) == {"license": "other", "library_name": "unweather", "pipeline_tag": "image-to-image", "datasets": ["set"],
                          "tags": ["image-restoration", "pytorch", "smgarn"]}
    for words in ("# hub\n", "SMGARN: snow mask guided", f"{numbers['parameters']:,} parameters", "channels `4`",
                  f"- Epoch of these weights: `{note['epoch']}`", "- loss: `1*L1+1*L1:mask`", "- batch_size: `2`",
                  f"| `set` | {numbers['count']}", f"| {numbers['psnr']:.2f} (", f"| {numbers['ssim']:.4f} |",
                  f"{numbers['input_psnr']:.2f}, {numbers['input_ssim']:.4f}", "`default` version `1`, `RGB`",
                  "`x/model/model_best.pt`, the file",
                  "- `set`: no licence of this set is known",
                  hashlib.sha256(Path("hub/model.safetensors").read_bytes()).hexdigest(), "all 130 tensors are equal"):
        assert words in page, words
    assert unweather.restore(unweather.load("hub/model.safetensors"), photo(24, 20, 1)).shape == (24, 20, 3)


def test_numbers_of_other_weights_are_not_taken(tool, trained):
    status, _ = tool(str(trained / "model/model_latest.pt"), "--safetensors", "--card", "--output", "hub")
    page = Path("hub/README.md").read_text(encoding="utf-8")
    assert status == 0 and "## Numbers\n\nNot recorded.\n" in page and "- loss: `1*L1+1*L1:mask`" in page


def test_a_file_without_an_experiment(tool):
    make("smgarn")
    assert tool("x.pt", "--safetensors", "--card")[0] == 0
    page = Path("x/README.md").read_text(encoding="utf-8")
    assert "datasets" not in head(page)
    assert "- Trained for: not recorded\n" in page and "- loss: not recorded\n" in page and "## Numbers\n\nNot recorded.\n" in page
    assert page.count("not recorded") > 10 and "None" not in page and "nan" not in page


def test_tasks_and_licences(tool):
    make("smgarn")
    note = {"epoch": 2, "score": 30.123456, "data_train": "BSD400@0-55+Rain100L+DemoHaze", "data_range": "1-10"}
    files.write_tensors(Path("x.pt"), files.read_tensors("x.pt") | {"note": note})
    assert tool("x.pt", "--safetensors", "--card")[0] == 0
    page = Path("x/README.md").read_text(encoding="utf-8")
    assert head(page)["datasets"] == ["BSD400", "Rain100L", "DemoHaze"]
    assert head(page)["tags"][-3:] == ["haze", "noise", "rain"] and "- Trained for: haze, noise, rain" in page
    assert "- `BSD400@0-55`: Berkeley's photos: its authors permit non-commercial" in page and "- `DemoHaze`: photos of the package" in page
    assert "`30.1235`" in page and "`1-10`" in page


def test_licences_are_of_known_sets():
    assert {name for name in DATASETS if "no licence" not in licence(name)} >= {"BSDS500", "BSD400", "CBSD68"}
    assert "ask its authors" in licence("Rain100L") == licence("mine")


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_from_files_stay_texts(tool, text):
    """Names from a file are quoted: the head has the same keys, and the page no further markup."""
    make("smgarn")
    note = {"epoch": text, "score": text, "data_train": f"{text}+Rain100L", "data_range": text}
    files.write_tensors(Path("x.pt"), files.read_tensors("x.pt") | {"note": note})
    assert tool("x.pt", "--safetensors", "--card", "--output", "hub")[0] == 0
    page = Path("hub/README.md").read_text(encoding="utf-8")
    assert set(head(page)) == {"license", "library_name", "pipeline_tag", "tags", "datasets"} and head(page)["license"] == "other"
    assert head(page)["datasets"][-1] == "Rain100L"
    markup = re.sub(r"```.*?```|`[^`\n]*`", "", page, flags=re.DOTALL)
    assert "<" not in markup and not re.search(r"^license: mit", page.split("\n---\n", 1)[1], re.MULTILINE)


@pytest.mark.parametrize("metrics", ["", "[]", "{}", '{"set": 3}', '{"set": {"weights": "x/model/model_best.pt"}}',
                                     '{"set": {"weights": "x/model/model_best.pt", "psnr": "high"}}', "[" * 10_000])
def test_damaged_numbers_are_not_recorded(trained, metrics):
    (trained / "metrics.json").write_text(metrics)
    assert card._numbers(trained / "model/model_best.pt") == ["Not recorded."]
    (trained / "args.json").write_text(metrics)
    assert card._experiment(trained / "model/model_best.pt").get("loss") is None


def test_all_or_nothing(tool, monkeypatch):
    make("smgarn")
    monkeypatch.setattr(card, "text", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert tool("x.pt", "--safetensors", "--card")[0] == 130
    assert [path.name for path in Path().iterdir()] == ["x.pt"]
    assert portable.NAME == "model.safetensors"
