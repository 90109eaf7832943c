"""Models by name: every folder here is one, found by a scan."""
import argparse
import importlib
from pathlib import Path
from types import ModuleType

from model.method import Method
from runtime.errors import UserError

DEFAULT = "smgarn"                        # the one place outside its folder that names a model
MODELS = sorted(path.parent.name for path in Path(__file__).parent.glob("*/__init__.py"))


def package(name: str) -> ModuleType:
    """Return a model's package: RECIPE, add_arguments, build, from_official; UserError lists the known ones."""
    key = name.lower()
    if key not in MODELS:
        raise UserError(f"unknown model '{name}' in --model; known: {', '.join(MODELS)}")
    return importlib.import_module(f"model.{key}")


def templates() -> dict[str, tuple[str, dict]]:
    """Return all models' templates: {name: (model, flags that it sets)}."""
    return {template: (name, flags) for name in MODELS
            for template, flags in getattr(package(name), "TEMPLATES", {}).items()}


def own_flags(name: str) -> dict[str, argparse.Action]:
    """Return the flags that a model's network depends on, by name: what `add_arguments` declares and model files state."""
    holder = argparse.ArgumentParser(add_help=False)
    package(name).add_arguments(holder)
    return {action.dest: action for action in holder._actions}


def build(args) -> Method:
    """Return the method of args.model: the network alone, nothing that only training needs."""
    return package(args.model).build(args)
