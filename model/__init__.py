"""Models by name: every folder below model/ that has an __init__.py is a model."""
import argparse
import contextlib
import importlib
import traceback
from pathlib import Path
from types import ModuleType

from model.method import Method
from runtime.errors import UserError

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
        what = f"{type(error).__name__}: {_first_line(error)} ({_place(error, key)})"
        raise UserError(f"the model {key} cannot be imported: {what}") from error
    missing = [part for part in REQUIRED if not hasattr(found, part)]
    if missing:
        raise UserError(f"the model {key} cannot be used: model/{key}/__init__.py does not define {', '.join(missing)}")
    return found


def _first_line(error: Exception) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error).partition("\n")[0]


def _place(error: Exception, key: str) -> str:
    """Return `file, line N` of an error: the position of a syntax error, else the last line that ran in the model's folder."""
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        file, line = next(((frame.filename, frame.lineno) for frame in reversed(frames) if key in Path(frame.filename).parts),
                          (f"model/{key}/__init__.py", 1))
    root = Path(__file__).parent.parent
    return f"{Path(file).relative_to(root) if Path(file).is_relative_to(root) else file}, line {line}"


def templates() -> dict[str, tuple[str, dict]]:
    """Return the templates of all packages that can be imported: {template: (model, flags that the template sets)}."""
    found: dict[str, tuple[str, dict]] = {}
    for name in MODELS:
        with contextlib.suppress(UserError):
            found |= {template: (name, flags) for template, flags in getattr(package(name), "TEMPLATES", {}).items()}
    return found


def own_flags(name: str) -> dict[str, argparse.Action]:
    """Return by name the flags that a model's network depends on; `add_arguments` declares them and model files store them."""
    holder = argparse.ArgumentParser(add_help=False)
    package(name).add_arguments(holder)
    return {action.dest: action for action in holder._actions}


def build(args) -> Method:
    """Return the method of args.model with its network, but without anything that only training needs."""
    method = package(args.model).build(args)
    method.built_from = repr((args.model, {name: getattr(args, name, None) for name in own_flags(args.model)}))
    return method
