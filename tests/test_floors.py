"""What the root modules import: only floors below their own (import-linter checks the packages, see pyproject.toml)."""
import ast
from pathlib import Path

import pytest

from tests.conftest import REPO

FLOORS = [{"tool", "unweather"}, {"main"}, {"trainer"}, {"tester"}, {"option"}, {"restore"}, {"model"}, {"report"}, {"data"},
          {"metric", "loss"}, {"runtime"}, {"utility", "contract"}]
LEVEL = {name: number for number, floor in enumerate(FLOORS) for name in floor}
ROOT = sorted(REPO.glob("*.py"))


def imported(source: str) -> set[str]:
    """Return the top-level names that a module imports anywhere, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or ".").split(".")[0])
    return names


def upward(module: str, source: str) -> set[str]:
    """Return what of ours a module imports that is not on a floor below its own."""
    return {name for name in imported(source) if name in LEVEL and LEVEL[name] <= LEVEL[module]}


@pytest.mark.parametrize("path", ROOT, ids=lambda path: path.name)
def test_root_modules_import_only_lower_floors(path: Path):
    assert path.stem in LEVEL, f"{path.name} is on no floor: move it into a package, or give it one in FLOORS and in pyproject.toml"
    assert upward(path.stem, path.read_text(encoding="utf-8")) == set()


def test_an_import_of_a_higher_floor_is_found():
    assert upward("tester", "def f():\n    from trainer import Trainer\n    import metric\n    import torch") == {"trainer"}
    assert upward("contract", "import runtime.files, utility") == {"runtime", "utility"}


def test_every_package_has_a_floor():
    packages = {path.parent.name for path in REPO.glob("*/__init__.py")} - {"tests"}
    assert packages == {name for name in LEVEL if (REPO / name).is_dir()}
