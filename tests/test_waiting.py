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
            print(os.environ.get("OMP_WAIT_POLICY"))
            sys.exit(0)
sys.meta_path.insert(0, Watch())
runpy.run_module(sys.argv[1], run_name=sys.argv[2])
"""


@pytest.mark.parametrize("program, name, policy", [
    ("main", "__main__", "passive"), ("tool.demo", "__main__", "passive"), ("tool.demo_kd", "__main__", "passive"),
    ("tool.serve", "__main__", "passive"), ("tool.measure", "__main__", "passive"), ("main", "main", "None"),
])
def test_before_torch_is_imported(program, name, policy):
    """The setting is in place as torch is imported; importing a program as a module sets nothing."""
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    result = subprocess.run(python("-c", CODE, program, name), env=environment | {"PYTHONPATH": str(REPO)}, cwd=REPO,
                            capture_output=True, text=True)
    assert result.stdout.strip() == policy, result.stderr


@pytest.mark.parametrize("setting", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_the_users_setting_stays(monkeypatch, setting):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(setting, "7")
    waiting.leave_cores_to_others()
    assert os.environ[setting] == "7"
    assert {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys() == {setting}
