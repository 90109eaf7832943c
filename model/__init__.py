"""Models by name: every folder below model/ that has an __init__.py is a model."""
import argparse
import contextlib
import importlib
from pathlib import Path
from types import ModuleType

from model.method import Method
from runtime.arguments import Code
from runtime.errors import UserError, about

DEFAULT = "smgarn"                        # the only model name outside the folder of that model
MODELS = sorted(path.parent.name for path in Path(__file__).parent.glob("*/__init__.py"))


REQUIRED = ("RECIPE", "add_arguments", "build", "from_official")  # the names that every package must define


def package(name: str) -> ModuleType:
    """Return a model's package: RECIPE, add_arguments, build, from_official.

    Raises UserError for an unknown name (with the list of models), for a package that cannot be imported (with file and line)
    and for one that lacks a required name.
    """
    key = name.lower()
    if key not in MODELS:
        raise UserError(f"unknown model '{name}' in --model; known: {', '.join(MODELS)}")
    try:
        found = importlib.import_module(f"model.{key}")
    except Exception as error:            # a package that a user added may raise any exception
        what = about(error, lambda file: key in file.parts, Path(__file__).parent / key / "__init__.py")
        raise UserError(f"the model {key} cannot be imported: {what}") from error
    missing = [part for part in REQUIRED if not hasattr(found, part)]
    if missing:
        raise UserError(f"the model {key} cannot be used: model/{key}/__init__.py does not define {', '.join(missing)}")
    return found


def templates() -> dict[str, tuple[str, dict]]:
    """Return the templates of all packages that can be imported: {template: (model, flags that the template sets)}."""
    found: dict[str, tuple[str, dict]] = {}
    for name in MODELS:
        with contextlib.suppress(UserError):
            found |= {template: (name, flags) for template, flags in getattr(package(name), "TEMPLATES", {}).items()}
    return found


def own_flags(name: str) -> dict[str, argparse.Action]:
    """Return by name the flags that a model's network depends on; `add_arguments` declares them and model files store them."""
    return {flag: action for flag, action in _flags(name).items() if not isinstance(action, Code)}


def code_flags(name: str) -> dict[str, argparse.Action]:
    """Return by name the flags with which the user names the code of a model's network; no file states them."""
    return {flag: action for flag, action in _flags(name).items() if isinstance(action, Code)}


def _flags(name: str) -> dict[str, argparse.Action]:
    holder = argparse.ArgumentParser(add_help=False)
    package(name).add_arguments(holder)
    return {action.dest: action for action in holder._actions}


def build(args) -> Method:
    """Return the method of args.model with its network, but without anything that only training needs."""
    return package(args.model).build(args)
