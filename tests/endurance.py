"""Long runs: memory, open files and threads over many epochs and images, and every model in bf16 beside float32.

    python -m tests.endurance epochs|images|bf16

`epochs` trains 1,000 epochs, `images` restores 3,000 images, `bf16` trains every model 300 steps in both precisions. The program ends
with status 1 if memory grows by more than GROWTH, if files or threads stay open, or if a loss in bf16 is clearly higher than in float32.
"""
import argparse
import os
import sys
import tempfile
import threading
from pathlib import Path

import torch

import main as program
import model
import tester
import trainer
from runtime import files
from tests import small
from tests.conftest import TINY, make_pairs, photo, save

GROWTH = 30                               # MiB between the first tenth and the end of a run
CLOSE = 0.1                               # allowed relative difference of the mean loss of the last epoch


def used() -> tuple[float, int, int]:
    """Return the resident memory in MiB, the number of open files and of threads of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir("/proc/self/fd")), threading.active_count()


def compared(name: str, early: tuple, late: tuple) -> bool:
    """Print what was used early and late in a run; return whether it stayed flat."""
    (memory, opened, threads), (memory_end, opened_end, threads_end) = early, late
    print(f"{name}: memory {memory:.0f} -> {memory_end:.0f} MiB, open files {opened} -> {opened_end}, "
          f"threads {threads} -> {threads_end}", flush=True)
    return memory_end - memory < GROWTH and opened_end <= opened and threads_end <= threads


def epochs(count: int = 1000) -> bool:
    """Train `count` epochs of two steps with a test after every tenth; return whether the use of memory stayed flat."""
    make_pairs(Path("dataset/set"), 4)
    found, real = [], trainer.Trainer._end_epoch

    def end(self, last):
        real(self, last)
        found.append(used())
    trainer.Trainer._end_epoch = end
    flags = [*TINY, "--data_train", "set", "--loss", "1*L1", "--epochs", str(count), "--val_epochs", "10", "--save", "x", "--no-audit"]
    assert program.main(flags) == 0
    return compared(f"{count} epochs", found[count // 10], found[-1])


def pictures(count: int = 3000) -> bool:
    """Restore `count` images of several sizes; return whether the use of memory stayed flat."""
    make_pairs(Path("dataset/set"), 4)
    assert program.main([*TINY, "--data_train", "set", "--loss", "1*L1", "--save", "x", "--no-audit"]) == 0
    for number in range(count):
        save(Path(f"photos/{number}.png"), photo(24 + number % 5, 32, number % 50))
    found, real = [], tester.Restorer.__call__

    def call(self, *args, **kwargs):
        found.append(used())
        return real(self, *args, **kwargs)
    tester.Restorer.__call__ = call
    assert program.main(["--test_only", "--pre_train", "experiment/x/model/model_best.pt", "--dir_demo", "photos", "--save_results",
                         "--cpu"]) == 0
    return compared(f"{count} images", found[len(found) // 10], found[-1])


def bf16(steps: int = 300) -> bool:
    """Train every model for `steps` steps in both precisions; return whether no loss in bf16 is clearly higher."""
    make_pairs(Path("dataset/set"), 6)
    fine = True
    for name in model.MODELS:
        if name == "rain2avoid":          # it trains one of the others
            continue
        tiny = small.flags(name)
        losses = []
        for precision in ("single", "bf16"):
            flags = ["--model", name, *tiny, "--data_train", "set", "--loss", "1*L1", "--epochs", "3", "--epoch_chg", "3", "--test_every",
                     str(steps // 3), "--batch_size", "4", "--patch_size", "32", "--val_epochs", "3", "--lr", "1e-3", "--cpu", "--no-audit",
                     "--no-report", "--precision", precision, "--save", f"{name}_{precision}"]
            assert program.main(flags) == 0
            losses.append(files.read_tensors(f"experiment/{name}_{precision}/model/state.pt")["progress"]["last_loss"])
        close = losses[1] <= (1 + CLOSE) * losses[0]
        print(f"{name}: mean loss of the last epoch {losses[0]:.5f} in float32, {losses[1]:.5f} in bf16"
              f"{'' if close else ': NOT CLOSE'}", flush=True)
        fine = fine and close
    return fine


def main() -> int:
    """Run the parts that the command line names; return 1 if one of them found a fault."""
    parts = {"epochs": epochs, "images": pictures, "bf16": bf16}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=parts)
    args = parser.parse_args()
    torch.set_num_threads(1)
    fine = True
    for part in args.parts:
        with tempfile.TemporaryDirectory() as place:
            os.chdir(place)
            fine = parts[part]() and fine
            os.chdir("/")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
