"""make zoo NAME=aio HOURS=2: train a network of the zoo by its zoo/<name>/args.json, test it, and write its weights with their card."""
import json
import os
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import main
from model import weights
from runtime import experiment, files, machine, process, zoo
from runtime.errors import Failure, UserError, short
from runtime.progress import duration
from tool import budget, card, portable
from tool.zoo import prepare

TRAINING = 0.9                            # part of the hours for training; tests and the writing of states take the rest
TIMED = 20.0                              # seconds for which each stage is timed, at most a fiftieth of the time
SMOKE = {"--data_train": "photos@any", "--data_test": "DemoRain+DemoNoise"}              # without UNWEATHER_DATA


class Plan(NamedTuple):
    """What is decided once, before the first step, so that a resumed training has the same steps.

    hours: as given; steps: of each epoch; rates: steps/s of each stage; processor, data: in words.
    """
    hours: float
    steps: int
    rates: list[float]
    processor: str
    data: str


def run(name: str, hours: float) -> Path:
    """Train, test and export a network; return the new folder of its weights. A stopped training continues. Raises UserError, Failure."""
    known = sorted(path.parent.name for path in zoo.ROOT.glob("*/args.json"))
    if name not in known:
        raise UserError(f"the zoo has no network '{short(name)}', because there is no args.json of it; known: {', '.join(known)}")
    place, folder = zoo.ROOT / name / "args.json", experiment.folder_of(f"zoo/{name}/training").parent
    found = prepare.source()
    flags = ["--config", os.path.relpath(place), "--dir_data", str(prepare.prepare(found)), "--save", f"zoo/{name}/training"]
    if not found:
        print("UNWEATHER_DATA is not set: this is a smoke test with scikit-image's photos, not a training of useful weights")
        flags += [text for flag in SMOKE.items() for text in flag]
    plan = planned(folder / "plan.json", flags, hours, "data of UNWEATHER_DATA" if found else "smoke test with scikit-image's photos")
    flags += ["--test_every", str(plan.steps)]
    print(f"$ python main.py {shlex.join(flags)}", flush=True)
    if status := main.main([*flags, "--resume", "auto"]):
        raise Failure(f"the training ended with status {status}; the same command continues")
    return released(folder, name, plan)


def planned(path: Path, flags: list[str], hours: float, about: str) -> Plan:
    """Return the plan of a training: the stored one, or a new one by the measured rate; raises UserError if a stored one is another."""
    if path.is_file():
        plan = Plan(**json.loads(path.read_text(encoding="utf-8")))
        if (plan.hours, plan.data) != (hours, about):
            raise UserError(f"{path} is the plan of a training of {plan.hours:g} hours with {plan.data}; continue it with "
                            f"HOURS={plan.hours:g}, or delete {path.parent} to begin a new one")
        return plan
    seconds = hours * 3600 * TRAINING
    print("measuring the rate of the training", flush=True)
    found = budget.measured([*flags, "--test_every", "1000000", "--no-audit"], min(TIMED, seconds / 50))
    with process.session(False, 1):
        rates = [round(rate, 3) for rate in found["rates"]]
        plan = Plan(hours, budget.steps(found, seconds), rates, machine.describe()["processor"], about)
    files.make_folder(path.parent)
    files.write_json(path, plan._asdict())
    print(f"{', '.join(f'{rate:.3g}' for rate in plan.rates)} steps/s, so {sum(found['epochs'])} epochs of {plan.steps} steps "
          f"in {duration(seconds)}, and tests", flush=True)
    return plan


def released(folder: Path, name: str, plan: Plan) -> Path:
    """Export the last weights of a training in half precision with their card to a new folder, and return it."""
    file, output = folder / "training" / "model" / "model_latest.pt", folder / "release"
    source = card.Source(file, weights.load(file), weights.network_flags(file), weights.read(file).note)
    shutil.rmtree(output, ignore_errors=True)
    print(portable.write_folder(source, output, half=True))
    files.write_json(output / "plan.json", plan._asdict())
    shutil.copyfile(folder / "training" / "curves.png", output / "curves.png")
    return output
