"""Train, test and apply a restoration network: python main.py --help"""
import contextlib
import sys

import torch

import data
import loss
import metric
import model
import option
import utility
from brief import Brief
from model import weights
from report import trackers
from runtime import experiment, process
from runtime.errors import Failure, Stopped, UserError
from runtime.log import Log
from trainer import Trainer


def main(argv: list[str] | None = None) -> int:
    """Run one command line; return the exit status: 0, 1 for a failure, 2 for what the user can mend."""
    try:
        args = option.parse(argv)
        if args.list:
            return show_lists()
        with process.session(args.cpu, args.n_GPUs):
            run(args)
        return 0
    except UserError as error:
        return complain(error, 2)
    except torch.OutOfMemoryError:
        return complain("the GPU's memory is full; train with a smaller --batch_size or with --split_batch, restore with --chop", 1)
    except Failure as error:
        return complain(error, 1)
    except MemoryError:
        return complain("the memory is full; train with a smaller --batch_size or --patch_size, restore with --chop", 1)
    except OSError as error:
        return complain(f"{error.filename or 'a file'}: {error.strerror or error}", 1)
    except (RuntimeError, ValueError) as error:
        return complain(known_trouble(error), 1)
    except Stopped as stop:
        return complain(stop, stop.status)
    except KeyboardInterrupt:
        return complain("stopped by the keyboard; --resume goes on after the last saved state, if there was one", 130)


def run(args) -> None:
    """Train and test, or only test, as the flags say; nothing is written before everything has been checked."""
    if args.test_only and not args.pre_train:
        raise UserError("--test_only needs weights: --pre_train FILE, or --load NAME for those of experiment/NAME")
    experiment.check_free(args.save)
    trackers.prepare(args.logger)
    metric.prepare(args.extra_metrics, process.device())
    package = model.package(args.model)
    trains = getattr(package, "trains", lambda args: True)(args)
    state = experiment.find_state(args) if trains else None
    jobs = getattr(package, "runs", data.runs)
    with contextlib.ExitStack() as held:
        for number, job in enumerate(jobs(args)):
            trainer = make_trainer(args, job, state) if job.train or args.test_only else None
            if not number:
                held.enter_context(experiment.alone(args.save))
                process.log().open(experiment.open_experiment(args), log_lengths(args, job, state))
            if trainer:
                with trackers.following(args, trainer) if job.kept else contextlib.nullcontext():
                    trainer.test(args.pre_train) if args.test_only else trainer.fit()
                job.done(trainer.method)
        if trains:
            process.log().say(f"all of it is in {experiment.folder_of(args.save)}")


def make_trainer(args, job: data.Run, state: dict | None) -> Trainer:
    """Build the network, load what --pre_train names, and return what trains it."""
    utility.seed_everything(args.seed)
    method = model.build(args)
    if args.pre_train and not state:
        # with a network for each picture the file is needed again
        process.log().say(weights.load_weights(method, args.pre_train, args.model, again=not job.kept), keep=job.kept)
    else:
        weights.forget()
    job.begin(method)
    return (Trainer if job.kept else Brief)(args, method, job, experiment.folder_of(args.save), state)


def log_lengths(args, job: data.Run, state: dict | None) -> dict | None:
    """Return to what lengths the logs are cut: those of the state, 0 for a fresh start, None where they just go on."""
    if args.test_only or not job.kept:
        return None
    return state["log"] if state else dict.fromkeys(Log.FILES, 0)


def known_trouble(error: RuntimeError | ValueError) -> str:
    """Return what to do about an error of PyTorch that is no defect of ours; any other goes on its way."""
    text = str(error)
    if "Expected more than 1 value per channel" in text:
        return "batch normalisation has a single value to take the mean of; train with a larger --batch_size or --patch_size"
    if "DataLoader worker" in text and ("killed" in text or "exited unexpectedly" in text):
        return "a process that loads data died, probably for want of memory (or of /dev/shm); try --n_threads 0"
    if "allocate memory" in text or "not enough memory" in text:
        return "the memory is full; train with a smaller --batch_size or --patch_size, restore with --chop"
    raise error


def show_lists() -> int:
    """Print models, templates, losses and data sets, a line each."""
    print("models:", *(f"  {name:14} {first_line(model.package(name))}" for name in model.MODELS), sep="\n")
    print("templates:", *(f"  {name:14} {owner}: {' '.join(f'--{k} {v}' for k, v in flags.items())}"
                          for name, (owner, flags) in model.templates().items()), sep="\n")
    print("losses:", *(f"  {name:14} {first_line(term)}" for name, term in loss.TERMS.items()), sep="\n")
    print("data sets:", *(f"  {name:14} {entry.task + ': ' if entry.task else ''}{entry.about}"
                          for name, entry in data.DATASETS.items()), sep="\n")
    print("protocols:", *(f"  {name:14} {metric.described(each)}" for name, each in metric.PROTOCOLS.items()), sep="\n")
    return 0


def first_line(thing) -> str:
    """Return the first line of a docstring."""
    return (thing.__doc__ or "").strip().partition("\n")[0]


def complain(error: object, status: int) -> int:
    """Print one sentence to stderr, from the process that it concerns; return the status."""
    where = f" [process {process.rank()} of {process.world()}]" if process.world() > 1 else ""
    print(f"main.py: error{where}: {error}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
