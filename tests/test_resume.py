"""A training that is stopped and resumed gives bit-identical weights, logs and numbers."""
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

import trainer
from model import weights
from restore.restorer import Restorer
from runtime import files, process
from tests.conftest import REPO, make_pairs, python, until
from tests.test_systems import KD, PLAIN

LONG = ["--epochs", "3", "--test_every", "3", "--batch_size", "2", "--n_threads", "0", "--cpu", "--print_every", "2", "--lr", "1e-3"]
SYSTEMS = {
    "smgarn": ["--channels", "4", "--patch_size", "16-24-16", "--loss", "1*L1", "--ema", "0.9", "--split_batch", "2", "--decay", "1-2"],
    "sapnet": [*PLAIN["sapnet"], "--patch_size", "24-32", "--epoch_chg", "2-3"],
    "dsrir": [*PLAIN["dsrir"], "--patch_size", "32", "--epochs", "4", "--test_every", "2", "--ema", "0.5"],
    "two_stage_kd": [*KD, "--epoch_chg", "1-3", "--teachers", "A.pt", "B.pt", "--optimizer", "ADAMW"],
    **{name: [*PLAIN[name], "--patch_size", "32"] for name in ("unet", "resnet", "dncnn", "restormer", "drsformer")},
    "rain2avoid": ["--strategy", "multiple", "--channels", "4", "--patch_size", "32", "--sdr_num", "4", "--ema", "0.5"],
}
SAME = ("log.txt", "log.jsonl", "metrics.json")


@pytest.fixture
def sets(place) -> Path:
    for name in "AB":
        make_pairs(place / "dataset" / name, 5)
    return place


def flags(system: str) -> list[str]:
    sets = "A+B" if system == "two_stage_kd" else "A"
    return ["--model", system, "--data_train", sets, "--data_test", "A", "--no-audit", *LONG, *SYSTEMS[system]]


def teachers() -> None:
    import model
    import option
    args = option.parse(["--model", "two_stage_kd", "--data_train", "x", *KD[:4]])
    for name in "AB":
        files.write_tensors(Path(f"{name}.pt"), weights.model_content(model.build(args), args, {}))


def same(first: Path, second: Path, table: str = "metrics-A.csv") -> None:
    for name in (*SAME, table):
        one, two = ((folder / name).read_text().replace(str(folder), "X") for folder in (first, second))
        assert one == two, name
    for name in ("model_best.pt", "model_latest.pt"):
        one, two = (files.read_tensors(folder / "model" / name)["state"] for folder in (first, second))
        assert all(torch.equal(one[key], two[key]) for key in one), name


def stop_after(monkeypatch, count: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal during its step number `count`, counted from now."""
    real, steps = trainer.Trainer.train_step, []

    def train_step(self, batch):
        steps.append(1)
        if len(steps) == count:
            signal.raise_signal(number)
        return real(self, batch)
    monkeypatch.setattr(trainer.Trainer, "train_step", train_step)


@pytest.mark.parametrize("system", list(SYSTEMS))
def test_stopped_at_any_step(run, sets, monkeypatch, system):
    """Training is stopped repeatedly and resumed each time, across stages, with EMA and split batches."""
    each = 2 if system in ("smgarn", "sapnet", "dsrir", "two_stage_kd") else 4
    if system == "two_stage_kd":
        teachers()
    assert run(*flags(system), "--save", "whole")[0] == 0
    stops, status = 0, None
    while status != 0:
        with monkeypatch.context() as patch:
            stop_after(patch, each)
            status, text = run(*flags(system), "--save", "parts", "--resume", "auto")
        assert status in (0, 143), text
        stops += status == 143
    assert stops >= 2
    same(Path("experiment/whole"), Path("experiment/parts"))


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals(run, sets, monkeypatch, number, status):
    """The step is completed, the state is saved, and a message states how to resume."""
    stop_after(monkeypatch, 4, number)
    code, text = run(*flags("smgarn"), "--save", "x")
    assert code == status
    assert f"stopped by {number.name} in epoch 2 after step 1; the state is saved, --resume auto --save x continues from there" in text
    assert files.read_tensors("experiment/x/model/state.pt")["progress"]["step"] == 1
    assert [json.loads(line)["event"] for line in Path("experiment/x/times.jsonl").read_text().splitlines()][-1] == "stop"


def test_stopped_in_a_test(run, sets, monkeypatch):
    """After a signal during the test of an epoch, the training of the epoch is kept and its test is run on resume."""
    two = ["--data_range", "1-3/4-5"]
    assert run(*flags("smgarn"), *two, "--save", "whole")[0] == 0
    real = Restorer.__call__

    def restore(*arguments, **named):
        signal.raise_signal(signal.SIGTERM)
        return real(*arguments, **named)
    with monkeypatch.context() as patch:
        patch.setattr(Restorer, "__call__", restore)
        code, text = run(*flags("smgarn"), *two, "--save", "parts")
    assert code == 143 and "in epoch 1 after step 3" in text
    assert run("--load", "parts")[0] == 0
    same(Path("experiment/whole"), Path("experiment/parts"))


def test_killed_in_a_test(run, sets, monkeypatch):
    """A state that is old enough is saved before a test, so the training of the epoch is kept."""
    assert run(*flags("smgarn"), "--save", "whole")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "SAVE_INTERVAL", -1)
        patch.setattr(Restorer, "__call__", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(*flags("smgarn"), "--save", "parts")[0] == 130
    assert files.read_tensors("experiment/parts/model/state.pt")["progress"]["step"] == 3
    status, text = run("--load", "parts")
    assert status == 0 and "resuming after epoch 0, step 3" in text, text
    same(Path("experiment/whole"), Path("experiment/parts"))


def test_a_damaged_state(run, sets, monkeypatch):
    """A changed byte is detected, the previous state is used, and the result is the same."""
    assert run(*flags("smgarn"), "--save", "whole")[0] == 0
    stop_after(monkeypatch, 6)
    assert run(*flags("smgarn"), "--save", "parts", "--save_every", "1")[0] == 143
    path = Path("experiment/parts/model/state.pt")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    monkeypatch.undo()
    monkeypatch.chdir(sets)
    status, text = run(*flags("smgarn"), "--save", "parts", "--resume", "auto", "--save_every", "1")
    assert status == 0
    assert "state.pt is damaged: its checksum is wrong; the previous state experiment/parts/model/state_before.pt is used" in text
    same(Path("experiment/whole"), Path("experiment/parts"))


def test_nothing_whole_is_left(run, fails, sets, monkeypatch):
    """Without a usable state, auto starts a new training and overwrites the logs; -1 reports an error."""
    assert run(*flags("smgarn"), "--save", "whole")[0] == 0
    stop_after(monkeypatch, 2)
    assert run(*flags("smgarn"), "--save", "parts")[0] == 143
    monkeypatch.undo()
    monkeypatch.chdir(sets)
    Path("experiment/parts/model/state.pt").write_bytes(b"")
    assert "state.pt is damaged" in fails("--save", "parts", "--resume", "-1")
    assert run(*flags("smgarn"), "--save", "parts", "--resume", "auto")[0] == 0
    same(Path("experiment/whole"), Path("experiment/parts"))


def test_a_restart_goes_on_by_itself(run, sets, monkeypatch):
    """torchrun --max-restarts and a SLURM requeue repeat the same command, which may contain --reset."""
    assert run(*flags("smgarn"), "--save", "whole")[0] == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        assert run(*flags("smgarn"), "--save", "parts", "--reset")[0] == 143
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    status, text = run(*flags("smgarn"), "--save", "parts", "--reset")
    assert status == 0 and "resuming after epoch 1, step 2" in text
    same(Path("experiment/whole"), Path("experiment/parts"))


def test_a_restart_after_an_error_leaves_another_training_alone(run, fails, sets, monkeypatch):
    """The first start said that the experiment exists; the restart of the same command neither continues nor empties it."""
    assert run(*flags("smgarn"), "--save", "x")[0] == 0
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    before = Path("experiment/x/model/state.pt").read_bytes()
    assert "experiment/x exists already" in fails(*flags("smgarn"), "--save", "x", "--lr", "1e-2")
    assert Path("experiment/x/model/state.pt").read_bytes() == before


@pytest.mark.parametrize("more, words", [
    (["--resume", "-1", "--best", "ssim"], "because it was that by psnr of A by the protocol default, and is now that by ssim of A"),
    (["--resume", "-1", "--data_test", "B"], "and is now that by psnr of B"),
    (["--resume", "1"], "is chosen anew, because experiment/x/model/model_best.pt is that of a later epoch, 3"),
    (["--resume", "-1", "--data_test", "A+B"], ""),
])
def test_the_best_number_of_another_measure_is_not_kept(run, sets, more, words):
    """Only the epochs that are trained now compete, so that model_best.pt is the best one by the number that is asked for."""
    assert run(*flags("smgarn"), "--save", "x", "--save_models")[0] == 0
    status, text = run(*flags("smgarn"), "--save", "x", "--save_models", "--epochs", "4", *more)
    assert status == 0, text
    assert words in text and ("chosen anew" in text) == bool(words)
    best = files.read_tensors("experiment/x/model/model_best.pt")["note"]
    assert best["epoch"] == 4 or not words


def test_states_between_epochs(run, sets):
    """--save_every takes a number of steps or of minutes."""
    assert run(*flags("smgarn"), "--save", "x", "--save_every", "2")[0] == 0
    for value in ("-1", "x", "5h", "m"):
        assert run(*flags("smgarn"), "--save", "y", "--save_every", value)[0] == 2


def kill_at_a_state(command: list[str], state: Path, seconds: float) -> None:
    """Start a training and kill it `seconds` after it has written a state."""
    begun = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: state.is_file() and state.stat().st_mtime > begun, lambda: process.poll() is None)
    time.sleep(seconds)
    process.kill()
    process.wait()


@pytest.mark.slow
def test_kill_at_once(sets, monkeypatch):
    """A process that is killed during training or writing gives the same result after resuming."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = python(str(REPO / "main.py"), *flags("smgarn"), "--save_every", "1", "--resume", "auto", "--epochs", "6")
    assert subprocess.run([*command, "--save", "whole"], capture_output=True).returncode == 0
    state = Path("experiment/parts/model/state.pt")
    for number in range(2):
        kill_at_a_state([*command, "--save", "parts"], state, 0.1 * number)
    (state.parent / ".0.part").write_bytes(b"half")
    assert subprocess.run([*command, "--save", "parts"], capture_output=True).returncode == 0
    assert not list(Path("experiment").rglob(".*.part"))
    same(Path("experiment/whole"), Path("experiment/parts"))


def test_two_runs_on_one_experiment(fails, sets):
    """The second run is refused with a message that names the process holding the lock."""
    code = ("import fcntl, os, sys; f = open('experiment/.locks/x.lock', 'a+'); fcntl.lockf(f, fcntl.LOCK_EX);"
            "f.write(f'process {os.getpid()} on here'); f.flush(); print('held', flush=True); sys.stdin.read()")
    files.make_folder(Path("experiment/.locks"))
    holder = subprocess.Popen(python("-c", code), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    sentence = fails(*flags("smgarn"), "--save", "x")
    assert f"experiment/x is in use by process {holder.pid} on here; wait until it ends or choose another name" in sentence
    holder.kill()
    holder.wait()


def test_a_stale_lock(run, sets):
    files.write_text(files.make_folder(Path("experiment/.locks")) / "x.lock", "process 1 on here")
    assert run(*flags("smgarn"), "--save", "x")[0] == 0


def test_a_second_interrupt_ends_at_once():
    with process.signals():
        signal.raise_signal(signal.SIGINT)
        assert process.asked_to_end() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
