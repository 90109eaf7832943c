"""make torture: kill -9 trainings at random moments, resume them, and compare the result with an uninterrupted run.

    python -m tests.torture [--kills N] [--seed N]
"""
import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from runtime import files
from tests.conftest import REPO, make_pairs, python
from tests.test_resume import flags, same, teachers

SYSTEMS = ("smgarn", "sapnet", "dsrir", "two_stage_kd")
LENGTH = {"smgarn": ["--epochs", "24"], "sapnet": ["--epochs", "15", "--epoch_chg", "7-15"], "dsrir": ["--epochs", "8"],
          "two_stage_kd": ["--epochs", "12", "--epoch_chg", "6-12"]}


def command(system: str, save: str) -> list[str]:
    """Return the flags of a training: a state after every step, one worker process for loading, patches as in the tests."""
    return [*flags(system), *LENGTH[system], "--save_every", "1", "--save", save, "--resume", "auto", "--n_threads", "1"]


def survive(system: str, kills: int, rng: random.Random) -> tuple[int, float]:
    """Kill a training `kills` times, check that its files equal those of an uninterrupted run, and return kills and seconds."""
    begun = time.time()
    subprocess.run(python(str(REPO / "main.py"), *command(system, "whole")), check=True, capture_output=True)
    undisturbed = time.time() - begun
    done = 0
    while done < kills:
        process = subprocess.Popen(python(str(REPO / "main.py"), *command(system, "parts")), start_new_session=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            text, _ = process.communicate(timeout=rng.uniform(0.5, undisturbed))
            assert process.returncode == 0, text.decode()
            same(Path("experiment/whole"), Path("experiment/parts"))
            subprocess.run(["rm", "-rf", "experiment/parts"], check=True)        # it finished before the kill: start again
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            done += 1
    result = subprocess.run(python(str(REPO / "main.py"), *command(system, "parts")), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    same(Path("experiment/whole"), Path("experiment/parts"))
    assert not list(Path("experiment").rglob(".*.part"))
    return done, time.time() - begun


def survive_torchrun(kills: int, rng: random.Random) -> int:
    """Kill one of two processes `kills` times, while torchrun --max-restarts restarts both; return the number of kills."""
    def launch(save: str, *more: str) -> list[str]:
        return python("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *more, str(REPO / "main.py"),
                      *[flag for flag in command("smgarn", save) if flag not in ("--resume", "auto")], "--split_batch", "1")
    subprocess.run(launch("pair"), check=True, capture_output=True)
    process = subprocess.Popen(launch("pair_killed", "--max-restarts", str(kills)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    done = 0
    while done < kills and process.poll() is None:
        time.sleep(rng.uniform(8, 14))
        workers = subprocess.run(["pgrep", "-f", "main.py.*--save pair_killed"], capture_output=True, text=True).stdout.split()
        workers = [int(worker) for worker in workers if int(worker) != process.pid]
        if workers and process.poll() is None:
            os.kill(rng.choice(workers), signal.SIGKILL)
            done += 1
    assert process.wait() == 0, process.returncode
    one, two = (files.read_tensors(f"experiment/{name}/model/model_latest.pt")["state"] for name in ("pair", "pair_killed"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    return done


def main() -> None:
    """Run all systems and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=52, help="number of kills, divided equally between the systems")
    parser.add_argument("--torchrun_kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONPATH"] = str(REPO)
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        for name in "AB":
            make_pairs(Path("dataset", name), 5)
        teachers()
        for system in SYSTEMS:
            kills, seconds = survive(system, args.kills // len(SYSTEMS), rng)
            print(f"{system:14} killed {kills} times, resumed {kills} times, lost 0; weights, logs and numbers are bit-identical, "
                  f"no incomplete file; {seconds:.0f} s", flush=True)
            subprocess.run(["rm", "-rf", "experiment"], check=True)
        kills = survive_torchrun(args.torchrun_kills, rng)
        print(f"torchrun with two processes: one killed {kills} times, restarted by --max-restarts; weights bit-identical", flush=True)


if __name__ == "__main__":
    sys.exit(main())
