"""CONTRIBUTING.md works as typed: its blocks are written into a copy of the repository and its commands are run there."""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO

BLOCKS = re.findall(r"^```(python|sh)\n(.*?)^```$", (REPO / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)
ROOMS = ("data", "loss", "metric", "model", "report", "restore", "runtime", "tests", "tool")


@pytest.fixture
def copy(tmp_path) -> Path:
    """The repository's code, alone in a folder."""
    for path in (*REPO.glob("*.py"), REPO / "pyproject.toml", *(path for room in ROOMS for path in (REPO / room).rglob("*"))):
        if path.is_file() and path.suffix in (".py", ".toml", ".html", ".css", ".js", ".json"):
            place = tmp_path / path.relative_to(REPO)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    return tmp_path


def write(root: Path, block: str) -> None:
    """Do what a block's first line says: `# FILE` is a new file, `# FILE, imports` and `# FILE, in TABLE` are lines to add."""
    first, _, text = block.partition("\n")
    file, _, where = first.removeprefix("# ").partition(", ")
    path = root / file
    if not where:
        assert not path.exists(), f"{file} exists, so it is no new file"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return
    lines = path.read_text().splitlines(keepends=True)
    begin = r"(from|import) \w" if where == "imports" else rf"{where.removeprefix('in ')}\b.*[({{]"
    found = [number for number, line in enumerate(lines, 1) if re.match(begin, line) and (where != "imports" or line < text)]    # sorted
    assert found, f"{file} has no {where}"
    lines.insert(found[-1], text)
    path.write_text("".join(lines))


@pytest.mark.slow
def test_everything_that_the_page_says(copy):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    outputs = {}
    for kind, block in BLOCKS:
        if kind == "python":
            write(copy, block)
            continue
        for command in block.strip().splitlines():
            result = subprocess.run(command, shell=True, cwd=copy, env=environment, capture_output=True, text=True)
            outputs[command] = result.stdout
            assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
    for check in ("ruff check .", "mypy"):
        result = subprocess.run(f"python -m {check}", shell=True, cwd=copy, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, f"{check}\n{result.stdout}{result.stderr}"
    listing = outputs["python main.py --list"]
    assert re.search(r"^  tiny +Tiny: three convolutions", listing, re.MULTILINE)
    assert re.search(r"^  Gradient .* Parameters: step=1, squared=false\.$", listing, re.MULTILINE)
    assert " passed" in outputs["python -m pytest tests/test_models.py -k tiny"]
    losses = [json.loads(line)["losses"] for line in (copy / "experiment/tiny_loss/log.jsonl").read_text().splitlines() if '"epoch"' in line
              and '"losses"' in line]
    assert set(losses[0]) == {"loss", "L1", "Gradient", "Gradient#2"}
    numbers = {name: json.loads((copy / "experiment" / name / "metrics.json").read_text()) for name in ("colour", "tiny_best", "border")}
    assert numbers["colour"]["DemoSnow"]["colour"] > 0 and numbers["tiny_best"]["DemoSnow"]["model"] == "tiny"
    assert numbers["border"]["DemoSnow"]["others"][0]["protocol"]["name"] == "y_border4"
    assert json.loads((copy / "experiment/tiny_fog/metrics.json").read_text())["MyFog"]["count"] == 1


@pytest.mark.parametrize("section", ["model", "loss", "data set", "metric", "protocol"])
def test_there_is_an_example_for(section):
    """Each with a command that tries it, and every Python block with the file that it is."""
    text = (REPO / "CONTRIBUTING.md").read_text().partition(f"\n## A new {section}\n")[2].partition("\n## ")[0]
    assert "```python\n# " in text and "python main.py" in text
    assert all(re.match(r"# [\w/.]+\.py(, imports|, in [A-Z]+)?\n", block) for kind, block in BLOCKS if kind == "python")
