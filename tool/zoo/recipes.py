"""The recipes of the zoo, zoo/NAME/args.json: flags of main.py, and what follows from them."""
from pathlib import Path

import loss
from data import added
from data.sets import DATASETS
from runtime import experiment, zoo
from runtime.errors import UserError, short
from tool.zoo.prepare import PHOTOS

TASKS = ("noise", "rain", "snow", "haze")
RELEASE = "experiment/zoo/{}/release/model.safetensors"     # what make zoo writes
VGG = {"SCR", "HCR", "POCL"}              # losses of the recipes that need weights of VGG


def known() -> list[str]:
    """Return the names of all recipes."""
    return sorted(each.parent.name for each in zoo.ROOT.glob("*/args.json"))


def path(name: str) -> Path:
    """Return the file of a recipe; raises UserError for an unknown name."""
    if name not in known():
        raise UserError(f"the zoo has no network '{short(name)}', because there is no args.json of it; known: {', '.join(known())}")
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


def stages(name: str) -> list[str]:
    """Return the recipes that lead to a network, itself last: the stages before it, from whose weights it starts, and their teachers."""
    found = [name]
    while before := stage_of(flags(found[0]).get("pre_train", "")):
        if before in found:
            raise UserError(f"{path(found[0])} starts from {before}, which starts from it")
        found.insert(0, before)
    return [*(teacher for each in found for teacher in teachers(flags(each))), *found]


def teachers(recipe: dict) -> list[str]:
    """Return the recipes whose weights teach a network."""
    return [stage_of(file) for file in recipe.get("teachers", [])]


def unshipped(name: str) -> list[str]:
    """Return the recipes that lead to a network and whose weights the zoo does not have."""
    return [each for each in stages(name)[:-1] if each and each not in zoo.names()]


def stage_of(weights: str) -> str:
    """Return the recipe of weights, which are zoo:NAME or, if they do not ship, the file RELEASE; '' for other weights."""
    if weights.startswith(zoo.PREFIX):
        return weights.removeprefix(zoo.PREFIX)
    return next((name for name in known() if weights == RELEASE.format(name)), "")


def complete(names: list[str]) -> list[str]:
    """Return those of the networks from which none of the others starts."""
    started = {stage for each in names for stage in stages(each)[:-1]}
    return [name for name in names if name not in started]


def smoke(recipe: dict) -> list[str]:
    """Return the flags by which a recipe trains and tests on scikit-image's photos: other images, the same weather and masks.

    Weights that the recipe names as a file, to start from, as teachers or for its losses, are used if they are there.
    """
    sets = []
    for part, (base, task) in zip(str(recipe["data_train"]).split("+"), parts(recipe)):
        _, mark, what = part.partition("@")
        sets.append(f"{PHOTOS}@{what}" if mark else PHOTOS if base == PHOTOS else f"{PHOTOS}@{task}")
    chosen = ["--data_train", "+".join(sets), "--data_test", "+".join(f"Demo{task.capitalize()}" for task in tasks(recipe))]
    specs = str(recipe["loss"]).split(" / ")
    if _lacks(recipe.get("pre_train", "")):
        chosen += ["--pre_train", ""]
    if _lacks(recipe.get("vgg_weights", "")):
        chosen += ["--vgg_weights", "", "--loss", " / ".join(loss.without_types(spec, VGG) for spec in specs)]
    if any(map(_lacks, recipe.get("teachers", []))):
        chosen += ["--loss", " / ".join("1*L1" for _ in specs)]
    return chosen


def network_alone(recipe: dict) -> list[str]:
    """Return the flags with which a network of rain2avoid is tested without the map and the references of each image, as it ships."""
    return ["--no-keep_clean"] if recipe.get("keep_clean") is False else []


def _lacks(file: str) -> bool:
    """Return True if a recipe names a file that does not exist."""
    return bool(file) and not file.startswith(zoo.PREFIX) and not Path(file).is_file()
