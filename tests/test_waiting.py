"""How OpenMP threads wait is set before torch is imported, by the programs that compute."""
import os
import subprocess

import pytest

from runtime import waiting
from tests.conftest import REPO, python

CODE = """
import os, runpy, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ)
            sys.exit(0)
sys.meta_path.insert(0, Watch())
runpy.run_module(sys.argv[1], run_name=sys.argv[2])
"""


@pytest.mark.parametrize("program, name, limited", [
    ("main", "__main__", True), ("tool.demo", "__main__", True), ("tool.demo_kd", "__main__", True),
    ("tool.serve", "__main__", True), ("tool.measure", "__main__", True), ("main", "main", False),
])
def test_before_torch_is_imported(program, name, limited):
    """The setting is in place as torch is imported; importing a program as a module sets nothing."""
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    result = subprocess.run(python("-c", CODE, program, name), env=environment | {"PYTHONPATH": str(REPO)}, cwd=REPO,
                            capture_output=True, text=True)
    assert result.stdout.strip() == str(limited), result.stderr


@pytest.mark.parametrize("setting", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_the_users_setting_stays(monkeypatch, setting):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(setting, "7")
    waiting.leave_cores_to_others()
    assert os.environ[setting] == "7"
    assert {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys() == {setting}


@pytest.mark.parametrize("busy, setting", [(0.0, ("GOMP_SPINCOUNT", "30000")), (1.9, ("OMP_WAIT_POLICY", "passive"))])
def test_threads_sleep_on_a_busy_machine(monkeypatch, busy, setting):
    for name in waiting.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(waiting, "busy_cores", lambda: busy)
    waiting.leave_cores_to_others()
    assert {name: os.environ[name] for name in waiting.SETTINGS & os.environ.keys()} == dict([setting])
    for name in waiting.SETTINGS:
        os.environ.pop(name, None)


def test_busy_cores(monkeypatch, tmp_path):
    stat = tmp_path / "stat"
    texts = iter(["cpu  100 0 0 900 0 0 0 0 0 0\n", "cpu  110 0 0 910 0 0 0 0 0 0\n"])
    monkeypatch.setattr(waiting, "STAT", stat)
    assert waiting.busy_cores() == 0.0                            # no such file
    stat.write_text("")
    monkeypatch.setattr(waiting, "_times", lambda real=waiting._times: (stat.write_text(next(texts)), real())[1])
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert waiting.busy_cores() == 1.0
