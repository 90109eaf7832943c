"""Time budgets of trainings: how many steps fit into given seconds at the measured rate of this machine."""
import time

import data
import model
import option
import utility
from runtime import experiment, memory, process
from trainer import Trainer

MANY = 100_000                            # steps of an epoch, more than are timed
WARM, TIMED = 3, 20.0                     # steps that are not timed; seconds during which the steps of a stage are timed


def measured(flags: list[str], seconds: float = TIMED) -> dict:
    """Return the rate in steps/s of each stage of a training with these flags of main.py, and the peak memory of a first step in bytes.

    The result is {'epochs': of each stage, 'rates', 'memory'}. Reading of the data counts, tests and the writing of states do not.
    Raises UserError for wrong flags or data.
    """
    args = option.parse([*flags, "--test_every", str(MANY)])
    with process.session(args.cpu, args.n_GPUs):
        utility.seed_everything(args.seed)
        run = next(iter(getattr(model.package(args.model), "runs", data.runs)(args)))
        trainer = Trainer(args, model.build(args), run._replace(kept=False), experiment.folder_of(args.save))
        stages = [(stage, loader) for stage, loader in zip(trainer.stages, trainer.loaders) if stage.epochs]
        found = {"epochs": [stage.epochs for stage, _ in stages], "rates": [], "memory": 0}
        for stage, loader in stages:
            trainer.enter(stage)
            trainer.method.train()
            batches = iter(loader)
            need = memory.peak(lambda batches=batches: trainer.train_step(next(batches).to(trainer.device)))
            found["memory"] = max(found["memory"], need or 0)
            found["rates"].append(_rate(trainer, batches, seconds))
    return found


def _rate(trainer: Trainer, batches, seconds: float) -> float:
    count, start = 0, time.perf_counter()
    for number, batch in enumerate(batches, 1 - WARM):
        trainer.train_step(batch.to(trainer.device))
        trainer.late.take(0)
        if number <= 0:
            start = time.perf_counter()
        else:
            count = number
            if time.perf_counter() - start > seconds:
                break
    return count / (time.perf_counter() - start)


def steps(found: dict, seconds: float) -> int:
    """Return the number of steps of each epoch with which all stages together take these seconds, at least 1."""
    an_epoch = sum(epochs / rate for epochs, rate in zip(found["epochs"], found["rates"]))
    return max(int(seconds / an_epoch), 1)
