"""Runs of several processes: signals, a failing process, restarts, two nodes, and the exit of one process."""
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from runtime import files
from tests.conftest import PATIENCE, REPO, TINY, make_pairs, python, until

FLAGS = ["--data_train", "set", *TINY, "--batch_size", "4", "--test_every", "4", "--epochs", "3", "--loss", "1*L1", "--data_range",
         "1-4/5-6", "--no-audit", "--save_every", "1"]
STATE = Path("experiment/parts/model/state.pt")


@pytest.fixture
def place(place, monkeypatch) -> Path:
    make_pairs(place / "dataset" / "set", 6)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    return place


def start(*flags: str, launch: tuple[str, ...] = (), script: str = "main.py") -> subprocess.Popen:
    """Start a training with two processes of torchrun."""
    launch = launch or ("--standalone", "--nproc_per_node", "2")
    return subprocess.Popen(python("-m", "torch.distributed.run", *launch, str(REPO / script), *FLAGS, *flags),
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> str:
    _, text = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, text
    return text


def equal(first: str, second: str) -> bool:
    one, two = (files.read_tensors(f"experiment/{name}/model/model_latest.pt")["state"] for name in (first, second))
    return all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.slow
def test_stopped_failing_restarted(place):
    """Stopped, failed and restarted runs give the same weights as an uninterrupted run, bit for bit."""
    finish(start("--save", "whole"))

    process = start("--save", "parts")                            # a scheduler's SIGTERM to torchrun
    until(STATE.is_file, lambda: process.poll() is None)
    process.send_signal(signal.SIGTERM)
    text = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode != 0 and "stopped by SIGTERM in epoch" in text
    finish(start("--save", "parts", "--resume", "auto"))
    assert equal("whole", "parts")

    process = start("--save", "failed", script="tests/failing.py")                   # one process fails: all end without waiting for it
    text = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode != 0 and "main.py: error [process 1 of 2]: a made-up failure" in text

    finish(start("--save", "again", script="tests/failing.py", launch=("--standalone", "--nproc_per_node", "2", "--max-restarts", "1")))
    assert equal("whole", "again")


@pytest.mark.slow
def test_two_nodes(place, monkeypatch):
    """Two agents of torchrun, with one process each, connect to one address and train one network."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = f"127.0.0.1:{free.getsockname()[1]}"
    launch = ("--nnodes", "2", "--nproc_per_node", "1", "--rdzv_id", "one", "--rdzv_backend", "c10d", "--rdzv_endpoint", meet)
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")      # as in job.sh of docs/training.md
    for process in [start("--save", "nodes", launch=launch) for _ in range(2)]:
        finish(process)
    assert files.read_tensors("experiment/nodes/model/state.pt")["progress"]["epoch"] == 3


@pytest.mark.parametrize("ending, status", [("return 3", 3), ("raise ValueError('unexpected')", 1), ("raise SystemExit(5)", 5)])
def test_the_end_of_one_of_several(monkeypatch, ending, status):
    """Status, output, exit handlers and other threads are as in a usual exit, but there is no teardown of the interpreter."""
    for name, value in dict(RANK="1", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="1").items():
        monkeypatch.setenv(name, value)
    code = f"""
import atexit, threading, time
from runtime import process
class Teardown:
    def __del__(self): print("teardown")
kept = Teardown()
def command():
    atexit.register(print, "registered")
    threading.Thread(target=lambda: (time.sleep(0.3), print("thread"))).start()
    print("command", end=" ")
    {ending}
process.leave(command)
"""
    result = subprocess.run(python("-c", code), capture_output=True, text=True, cwd=REPO)
    assert result.returncode == status, result.stderr
    assert result.stdout == "command thread\nregistered\n" + ("teardown\n" if status == 5 else "")
    assert ("ValueError: unexpected" in result.stderr) == (status == 1)
