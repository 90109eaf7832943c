"""How OpenMP threads wait, and large pages of memory, are set before torch is imported, by the programs that compute."""
import os
import subprocess

import pytest
import torch

from runtime import process, waiting
from tests.conftest import REPO, python

CODE = """
import os, runpy, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(("OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ) and os.environ.get("THP_MEM_ALLOC_ENABLE") == "1")
            sys.exit(0)
sys.meta_path.insert(0, Watch())
runpy.run_module(sys.argv[1], run_name=sys.argv[2])
"""


@pytest.mark.parametrize("program, name, limited", [
    ("main", "__main__", True), ("tool.demo", "__main__", True), ("tool.demo_kd", "__main__", True),
    ("tool.serve", "__main__", True), ("tool.restore", "__main__", True), ("tool.measure", "__main__", True), ("main", "main", False),
])
def test_before_torch_is_imported(program, name, limited):
    """The settings are in place as torch is imported; importing a program as a module sets nothing."""
    unset = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "THP_MEM_ALLOC_ENABLE")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
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


def test_the_users_pages_stay(monkeypatch):
    monkeypatch.setattr(waiting, "leave_cores_to_others", lambda: None)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    waiting.before_torch()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"


@pytest.fixture
def environment(monkeypatch):
    """The environment without any of the variables that the module reads or sets; what it sets is removed afterwards."""
    names = waiting.WAITS | {"OMP_NUM_THREADS", waiting.BUSY}
    for name in names:
        monkeypatch.setenv(name, "")              # so that monkeypatch restores the variable, whatever sets it
        monkeypatch.delenv(name)
    return lambda: {name: os.environ[name] for name in names & os.environ.keys()}


@pytest.mark.parametrize("busy, cores, settings", [
    (0.0, 2, {"GOMP_SPINCOUNT": "30000"}),
    (0.6, 2, {"OMP_WAIT_POLICY": "passive"}),
    (1.0, 2, {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1", waiting.BUSY: "1.0"}),
    (7.0, 2, {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1", waiting.BUSY: "2.0"}),
    (3.9, 16, {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "12", waiting.BUSY: "3.9"}),
])
def test_a_busy_machine(monkeypatch, environment, busy, cores, settings):
    """Threads sleep while they wait, and as many compute as cores are free."""
    monkeypatch.setattr(waiting, "busy_cores", lambda: busy)
    monkeypatch.setattr(waiting, "own_cores", lambda: cores)
    waiting.leave_cores_to_others()
    assert environment() == settings


def test_the_users_number_of_threads_stays(monkeypatch, environment):
    monkeypatch.setattr(waiting, "busy_cores", lambda: 2.0)
    monkeypatch.setattr(waiting, "own_cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    waiting.leave_cores_to_others()
    assert environment() == {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "2"}


@pytest.mark.parametrize("stated, stored, used", [
    ({}, {"threads": 1, "cores": 2}, 1),                                                           # a quiet machine again
    ({"OMP_NUM_THREADS": "1", waiting.BUSY: "1.0"}, {"threads": 2, "cores": 2}, 2),                # a busy machine now
    ({"OMP_NUM_THREADS": "2"}, {"threads": 1, "cores": 2}, 2),                                     # the user has set it
    ({}, {"threads": 1, "cores": 8}, 2),                                                           # another machine
])
def test_a_resumed_training_keeps_its_threads(monkeypatch, environment, stated, stored, used):
    for name, value in stated.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(waiting, "own_cores", lambda: 2)
    number = [int(stated.get("OMP_NUM_THREADS", 2))]
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: number.append(threads))
    process.set_threads(**stored)
    assert number[-1] == used


def test_busy_cores(monkeypatch, tmp_path):
    stat = tmp_path / "stat"
    monkeypatch.setattr(waiting, "STAT", stat)
    monkeypatch.setattr(waiting, "SAMPLES", (0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(waiting, "own_cores", lambda: 2)
    assert waiting.busy_cores() == 0.0                            # no such file

    def measured(*times: tuple[int, int]) -> float:
        texts = iter([f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\n" for busy, idle in times])
        stat.write_text("")
        monkeypatch.setattr(waiting, "_times", lambda: (stat.write_text(next(texts)), read())[1])
        return waiting.busy_cores()

    read = waiting._times
    assert measured((100, 900), (110, 910), (110, 910), (120, 920)) == 1.0        # a high load is measured twice
    assert measured((100, 900), (120, 900), (120, 900), (120, 920)) == 0.0        # it was over at once
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert measured((100, 900), (110, 910), (110, 910), (120, 920)) == 0.0        # two of four cores are used, and two are ours
