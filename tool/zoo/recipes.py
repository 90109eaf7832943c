"""The recipes of the zoo, zoo/NAME/args.json: flags of main.py, and what follows from them."""
from pathlib import Path

from data import added
from data.sets import DATASETS
from runtime import experiment, zoo
from runtime.errors import UserError, short
from tool.zoo.prepare import PHOTOS

TASKS = ("noise", "rain", "snow", "haze")


def path(name: str) -> Path:
    """Return the file of a recipe; raises UserError for an unknown name."""
    known = sorted(each.parent.name for each in zoo.ROOT.glob("*/args.json"))
    if name not in known:
        raise UserError(f"the zoo has no network '{short(name)}', because there is no args.json of it; known: {', '.join(known)}")
    return zoo.ROOT / name / "args.json"


def flags(name: str) -> dict:
    """Return the flags of a recipe by name."""
    return experiment.read_args(path(name))


def parts(recipe: dict) -> list[tuple[str, str]]:
    """Return the training sets of a recipe: (name of the images, task), 'any' for all tasks, '' for clean images."""
    found = []
    for part in str(recipe["data_train"]).split("+"):
        base, what = added.split(part)
        known = DATASETS.get(base)
        found.append((base, (what.task or "any") if what else known.task if known else ""))
    return found


def tasks(recipe: dict) -> list[str]:
    """Return the tasks that a network is trained for."""
    found = {task for _, task in parts(recipe)}
    return [task for task in TASKS if task in found or "any" in found]


def smoke(recipe: dict) -> list[str]:
    """Return the flags by which a recipe trains and tests on scikit-image's photos: other images, the same weather and masks."""
    sets = []
    for part, (base, task) in zip(str(recipe["data_train"]).split("+"), parts(recipe)):
        _, mark, what = part.partition("@")
        sets.append(f"{PHOTOS}@{what}" if mark else PHOTOS if base == PHOTOS else f"{PHOTOS}@{task}")
    return ["--data_train", "+".join(sets), "--data_test", "+".join(f"Demo{task.capitalize()}" for task in tasks(recipe))]
