"""make zoo NAME=aio HOURS=2: train a network of the zoo by its zoo/<name>/args.json, test it, and write its weights with their card."""
import os
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import torch

import main
from model import weights
from runtime import experiment, files, machine, process
from runtime.errors import Failure, UserError
from runtime.progress import duration
from tool import budget, card, portable
from tool.zoo import prepare, recipes

TRAINING = 0.9                            # part of the hours for training; tests and the writing of states take the rest
TIMED = 20.0                              # seconds for which each stage is timed, at most a fiftieth of the time
REAL, SMOKE = "data of UNWEATHER_DATA", "smoke test with scikit-image's photos"


class Plan(NamedTuple):
    """What is decided once, before the first step, so that a resumed training has the same steps.

    hours: as given; steps: of each epoch; rates: steps/s of each stage; processor, data: in words; recipe: the flags of args.json;
    threads: of torch when the rates were measured.
    """
    hours: float
    steps: int
    rates: list[float]
    processor: str
    data: str
    recipe: dict
    threads: int = 0                      # 0: not known


def run(name: str, hours: float) -> Path:
    """Train, test and export a network; return the new folder of its weights. A stopped training continues. Raises UserError, Failure."""
    place, recipe = recipes.path(name), recipes.flags(name)
    folder, found = experiment.folder_of(f"zoo/{name}/training").parent, prepare.source()
    flags = ["--config", str(place), "--dir_data", str(prepare.prepare(found)), "--save", f"zoo/{name}/training"]
    if not found:
        print("UNWEATHER_DATA is not set: this is a smoke test with scikit-image's photos, not a training of useful weights")
        flags += recipes.smoke(recipe)
    plan = planned(folder / "plan.json", flags, hours, REAL if found else SMOKE, recipe)
    flags += ["--test_every", str(plan.steps)]
    command([*flags, "--resume", "auto"])
    latest = folder / "training" / "model" / "model_latest.pt"
    args = experiment.stored_args(folder / "training")
    command(["--test_only", "--pre_train", str(latest), "--data_test", args["data_test"], "--dir_data", args["dir_data"],
             "--save", f"zoo/{name}/training", *recipes.network_alone(recipe)])
    return released(folder, name, latest)


def command(flags: list[str]) -> None:
    """Print and run a command of main.py; raises Failure if it fails."""
    print(f"\n$ python main.py {shlex.join(flags)}", flush=True)
    if status := main.main(flags):
        raise Failure(f"this ended with status {status}; the same command continues")


def planned(path: Path, flags: list[str], hours: float, about: str, recipe: dict) -> Plan:
    """Return the plan of a training: the stored one, or a new one by the measured rate; raises UserError if a stored one is another."""
    if path.is_file():
        stored = files.read_json(path)
        if not {*Plan._fields} - {"threads"} <= set(stored) <= {*Plan._fields}:
            raise UserError(f"{path} is not the plan of a training; delete {path.parent} to begin a new one")
        plan = Plan(**stored)
        if (plan.hours, plan.data) != (hours, about):
            raise UserError(f"{path} is the plan of a training of {plan.hours:g} hours with {plan.data}; continue it with "
                            f"HOURS={plan.hours:g}, or delete {path.parent} to begin a new one")
        if plan.recipe != recipe:
            changed = sorted(key for key in {*recipe, *plan.recipe} if recipe.get(key) != plan.recipe.get(key))
            raise UserError(f"args.json has changed since this training began, in {', '.join(changed)}; put it back to continue, or delete "
                            f"{path.parent} to begin a new one")
        return plan
    seconds = hours * 3600 * TRAINING
    print("measuring the rate of the training", flush=True)
    found = budget.measured([*flags, "--no-audit"], min(TIMED, seconds / 50))
    with process.session(False, 1):
        rates = [round(rate, 3) for rate in found["rates"]]
        plan = Plan(hours, budget.steps(found, seconds), rates, machine.describe()["processor"], about, recipe, torch.get_num_threads())
    files.make_folder(path.parent)
    files.write_json(path, plan._asdict())
    print(f"{', '.join(f'{rate:.3g}' for rate in plan.rates)} steps/s, so {sum(found['epochs'])} epochs of {plan.steps} steps "
          f"in {duration(seconds)}, and tests", flush=True)
    return plan


def released(folder: Path, name: str, file: Path) -> Path:
    """Export weights in half precision with their card to the new folder `release`; an earlier one is replaced when all is written."""
    source = card.Source(file, weights.load(file), weights.network_flags(file), weights.read(file).note)
    output, fresh, old = (folder / each for each in ("release", name, ".old"))
    for each in (fresh, old):
        shutil.rmtree(each, ignore_errors=True)
    print(portable.write_folder(source, fresh, half=True))
    for each in (folder / "plan.json", folder / "training" / "curves.png"):
        shutil.copyfile(each, fresh / each.name)
    if output.exists():
        os.rename(output, old)
    os.rename(fresh, output)
    shutil.rmtree(old, ignore_errors=True)
    return output
