"""Train, test and apply a restoration network: python main.py --help"""
import contextlib
import signal
import sys
from pathlib import Path

if __name__ == "__main__":                # must run before torch is imported
    from runtime import waiting
    waiting.before_torch()

import torch

import data
import loss
import metric
import model
import option
import tester
import utility
from contract import Outcome, Run
from model import weights
from model.method import Method
from report import trackers
from restore.restorer import Restorer, Settings
from runtime import experiment, machine, process
from runtime.errors import Diverged, Failure, Interrupted, Stopped, UserError, explained, short
from runtime.log import Log, print_any_text
from trainer import Trainer

LONGEST = 2000                            # characters of an error message


def main(argv: list[str] | None = None) -> int:
    """Run one command line; return the exit status: 0 for success, 1 for a failure, 2 for an error that the user can correct."""
    print_any_text()
    try:
        args = option.parse(argv)
        if args.list:
            return show_lists()
        if args.explain:
            print(option.explained(args))
            return 0
        with process.session(args.cpu, args.n_GPUs):
            run(args)
        return 0
    except UserError as error:
        return print_error(error, 2)
    except torch.OutOfMemoryError:
        return print_error("the GPU memory is full; train with a smaller --batch_size or with --split_batch, restore with --chop", 1)
    except Failure as error:
        return print_error(error, 1)
    except MemoryError:
        return print_error("the memory is full; train with a smaller --batch_size or --patch_size, restore with --chop", 1)
    except (ConnectionResetError, ConnectionRefusedError, EOFError):       # the connection to a worker process that has just ended
        return print_error(about_worker(""), 1)
    except OSError as error:
        return print_error(*explained(error))
    except (RuntimeError, ValueError) as error:
        return print_error(explain_torch_error(error), 1)
    except Stopped as stop:
        return print_error(stop, stop.status)
    except KeyboardInterrupt:
        return print_error("stopped by the keyboard; --resume continues from the last saved state, if one was saved", 130)


def run(args) -> None:
    """Train and test, or only test, according to the flags; all inputs are checked before anything is written."""
    if args.test_only and not args.pre_train:
        raise UserError("--test_only needs weights: --pre_train FILE, or --load NAME for the weights of experiment/NAME")
    experiment.check_free(args.save)
    trackers.prepare(args.logger)
    metric.prepare(args.metrics, process.device())
    package = model.package(args.model)
    trains = not args.test_only and getattr(package, "trains", lambda args: True)(args)
    state = experiment.find_state(args) if trains else None
    folder, outcomes = experiment.folder_of(args.save), []
    with contextlib.ExitStack() as held:
        for number, job in enumerate(getattr(package, "runs", data.runs)(args)):
            method = make_method(args, job, state)
            trainer = Trainer(args, method, job, folder, state) if job.train else None
            if not number:
                held.enter_context(experiment.exclusive(args.save))
                experiment.open_experiment(args, trains)
                process.log().open(folder, log_lengths(job, state))
                process.log().time("session", trains=bool(trains), **machine.describe())
                if threads := process.about_threads():
                    process.log().say(threads, keep=False)
                state = None              # the Trainer has it; this frees its memory
            outcomes += carry_out(args, job, method, trainer, folder)
        tester.conclude(outcomes, args, folder)
        if trains:
            process.log().say(f"weights, logs and numbers are in {folder}")


def make_method(args, job: Run, state: dict | None) -> Method:
    """Build the method of the model on the device and load the weights that --pre_train names; return it."""
    utility.seed_everything(args.seed, args.deterministic)
    method = model.build(args)
    if args.pre_train and not state:
        # a run with one network per image loads the file again for the next image
        process.log().say(weights.load_weights(method, args.pre_train, args.model, again=not job.kept), keep=job.kept)
    else:
        weights.forget()
    job.begin(method)
    return method.to(process.device(), memory_format=torch.channels_last)         # makes convolutions a third faster


def carry_out(args, job: Run, method: Method, trainer: Trainer | None, folder: Path) -> list[Outcome]:
    """Train if the job has a training, test the best or the given weights, and return the results that the job computes itself."""
    with trackers.following(args, folder, trainer) if job.kept else contextlib.nullcontext():
        if trainer:
            with process.signals():
                trainer = train(args, job, method, trainer, folder)
                if job.test:
                    test_best(args, job, method, trainer, folder)
        elif job.test:
            tester.test(method, job.test, args, folder, args.pre_train, finish=job.finish)
    return job.done(Restorer(method, Settings.of(args)._replace(backend="torch")))       # the network differs for each job


def train(args, job: Run, method: Method, trainer: Trainer, folder: Path) -> Trainer:
    """Train to the end; return the Trainer that ended it.

    After a divergence the training returns to the last good state with half the learning rate, at most --rollback times.
    """
    if args.rollback and job.kept and not trainer.steps:
        trainer.save_state()              # otherwise there is no state to return to before the first one is due
    while True:
        try:
            trainer.fit()
            return trainer
        except Diverged as error:
            if job.kept:
                process.barrier()
                experiment.keep_good_state(folder, bad=trainer.steps == trainer.saved_steps)
            state = experiment.newest_state(folder) if job.kept and trainer.rollbacks < args.rollback else None
            if not state:
                raise
            state["progress"] |= {"rollbacks": trainer.rollbacks + 1, "rate": trainer.rate / 2, "skipped": 0}
            process.log().open(folder, state["log"])
            process.log().say(f"{str(error).partition(';')[0]}; return {trainer.rollbacks + 1} of {args.rollback} to the state after epoch "
                              f"{state['progress']['epoch']}, step {state['progress'].get('step', 0)}, with half the learning rate")
            trainer = Trainer(args, method, job, folder, state)
            trainer.save_state()


def test_best(args, job: Run, method: Method, trainer: Trainer, folder: Path) -> None:
    """Load and test the best weights of a training; raises Stopped after SIGTERM or SIGINT."""
    best = folder / "model" / "model_best.pt"
    process.barrier()
    note = weights.read(best).note
    chosen = f"epoch {short(note.get('epoch'))}" + (f", {short(note['chosen_by'], 200)}" if note.get("chosen_by") else "")
    process.log().say(f"the best checkpoint is that of {chosen}; it is tested now")
    process.log().record("best", weights=str(best), chosen=chosen)
    weights.load_weights(method, best, args.model)
    try:
        tester.test(method, job.test, args, folder, str(best), finish=job.finish)
    except Interrupted:
        trainer.stop()


def log_lengths(job: Run, state: dict | None) -> dict | None:
    """Return the lengths in bytes to which the logs are cut: those in the state, 0 for a new training, None to append."""
    if not (job.train and job.kept):
        return None
    return state["log"] if state else dict.fromkeys(Log.FILES, 0)


def explain_torch_error(error: RuntimeError | ValueError) -> str:
    """Return a message that says how to correct a known PyTorch error; re-raise any other error."""
    text = str(error)
    if "Expected more than 1 value per channel" in text:
        return "batch normalisation needs more than one value per channel; train with a larger --batch_size or --patch_size"
    if "DataLoader worker" in text and ("killed" in text or "exited unexpectedly" in text):
        return about_worker(f"{text} {error.__cause__}")
    if "allocate memory" in text or "not enough memory" in text:
        return "the memory is full; train with a smaller --batch_size or --patch_size, restore with --chop"
    raise error


def about_worker(text: str) -> str:
    """Return what is known about the end of a worker process of the DataLoader, and what to try; `text` is PyTorch's message."""
    names = {signal.strsignal(number): number for number in signal.valid_signals()}
    found = next((name for name in names if name and f"killed by signal: {name}" in text), "")
    cause = f"was killed by signal {names[found]} ({found})" if found else "ended without a message"
    advice = {"SIGKILL": "the system does this if the memory is full, and so may a job scheduler; try a smaller --n_threads",
              "SIGBUS": "/dev/shm is full, or a file of the image cache was cut short just now; try --n_threads 0, or --ext img",
              "SIGSEGV": "a library crashed, perhaps while it decoded an image; try --n_threads 0, and python -m tool.verify"}
    unknown = "perhaps the memory is full; try --n_threads 0, which starts no such process"
    known = advice.get(signal.Signals(names[found]).name if found else "", unknown)
    return f"a worker process, which reads images, {cause}: {known}; --resume -1 continues a training from its last saved state"


def show_lists() -> int:
    """Print the models, templates, losses, data sets, benchmarks, metrics and protocols, one per line; return 0."""
    print("models:", *(f"  {name:14} {about_model(name)}" for name in model.MODELS), sep="\n")
    print("templates:", *(f"  {name:14} {owner}: {' '.join(f'--{k} {v}' for k, v in flags.items())}"
                          for name, (owner, flags) in model.templates().items()), sep="\n")
    print("losses:", *(f"  {name:14} {first_line(term)}{parameters(name)}" for name, term in loss.TERMS.items()), sep="\n")
    print("data sets:", *(f"  {name:14} {entry.task + ': ' if entry.task else ''}{entry.about}"
                          for name, entry in data.DATASETS.items()),
          "  NAME@25        clean photos with Gaussian noise of sigma 25, clipped and truncated to 8 bits",
          "  NAME@25f       the same as float, neither clipped nor rounded, as in many papers; NAME@0-55, NAME@0-55f: training",
          "  NAME@rain      clean images under rain that is drawn anew for every crop; also @snow, @haze, @any; a strength: @rain0.5-1.5",
          sep="\n")
    print("benchmarks, for --data_test:", *(f"  {name:14} {each.about}: {' '.join(each.members)}, protocol {each.protocol}"
                                            for name, each in data.BENCHMARKS.items()), sep="\n")
    print("metrics:", *(f"  {name:14} {first_line(entry.function)}{' (lower is better)' if entry.lower_is_better else ''}"
                        for name, entry in (metric.ALWAYS | metric.METRICS).items()), sep="\n")
    print("protocols:", *(f"  {name:14} {metric.described(each)}" for name, each in metric.PROTOCOLS.items()), sep="\n")
    return 0


def about_model(name: str) -> str:
    """Return the first line of a model package's docstring, or the reason why the package cannot be imported."""
    try:
        return first_line(model.package(name))
    except UserError as error:
        return f"BROKEN: {error}"


def parameters(name: str) -> str:
    """Return the parameters of a loss term with their defaults as text, '' if it has none."""
    text = loss.described(name)
    return f" Parameters: {text}." if text else ""


def first_line(thing) -> str:
    """Return the first line of a docstring."""
    return (thing.__doc__ or "").strip().partition("\n")[0]


def print_error(error: object, status: int) -> int:
    """Print an error message of one sentence to stderr, with the rank if there are several processes; return the status."""
    where = f" [process {process.rank()} of {process.world()}]" if process.world() > 1 else ""
    print(f"main.py: error{where}: {short(error, LONGEST)}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    process.leave(main)
