"""tool.audit: a found vulnerability, a failed look-up and a missing pip-audit are told apart; the floors of requirements.txt stay."""
import json
import re
import sys

import pytest

from tests.conftest import REPO
from tool import audit, guarded

# the lowest versions without the vulnerabilities that docs/tools.md names
FLOORS = {"torch": (2, 10), "torchvision": (0, 25), "pillow": (12, 3)}
HOLE = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"]}


@pytest.fixture
def tool(monkeypatch, capsys):
    """Run the tool beside a pip-audit that prints a text to stdout and another to stderr and exits with 1, as the real one does."""
    def call(out: str, err: str = "") -> tuple[int, str]:
        code = f"import sys; print({out!r}); print({err!r}, file=sys.stderr); sys.exit(1)"
        monkeypatch.setattr(audit, "command", lambda: [sys.executable, "-c", code])
        status = guarded("tool.audit", lambda: audit.run([]))
        return status, "".join(capsys.readouterr())
    return call


def test_a_vulnerability_is_named(tool):
    packages = [{"name": "a", "version": "1.0", "vulns": [HOLE]}, {"name": "b", "version": "1.0", "vulns": []},
                {"name": "c", "skip_reason": "not on PyPI"}]
    status, text = tool(json.dumps({"dependencies": packages}))
    assert status == 1 and "a 1.0: PYSEC-1, CVE-1; fixed in 2.0\nnot looked up: c\n" in text
    assert "error: 1 known vulnerabilities in 1 of 3 packages" in text
    assert tool(json.dumps({"dependencies": packages[1:]})) == (
        0, "not looked up: c\n1 of 2 packages were looked up; none of them has a known vulnerability\n")
    status, text = tool(json.dumps({"dependencies": packages[2:]}), "No known vulnerabilities found")       # as behind a mirror of PyPI
    assert status == 1 and "could look up none of the packages, so nothing is known about them" in text


@pytest.mark.parametrize("out", ["", "{}", "[]", "null", "{"])
def test_without_a_network_nothing_is_claimed(tool, out):
    status, text = tool(out, "Traceback\nConnectionError: no route")
    assert status == 1 and text == ("tool.audit: error: pip-audit could not look up the packages, so nothing is known about them; it needs "
                                    "a network: ConnectionError: no route\n")


def test_without_pip_audit(monkeypatch, capsys):
    monkeypatch.setattr(audit.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(audit.shutil, "which", lambda name: None)
    assert guarded("tool.audit", lambda: audit.run([])) == 2
    assert "pip-audit is not installed: " in capsys.readouterr().err


def test_floors():
    lines = (REPO / "requirements.txt").read_text().splitlines()
    parts = [re.fullmatch(r"([\w-]+)>=([\d.]+)", line).groups() for line in lines]
    stated = {name: tuple(map(int, version.split("."))) for name, version in parts}
    assert all(stated[name] >= floor for name, floor in FLOORS.items())
    assert "gradio" not in (REPO / "pyproject.toml").read_text() + "".join(lines)
