"""Models by name: every folder here is one, found by a scan."""
import argparse
import contextlib
import importlib
import traceback
from pathlib import Path
from types import ModuleType

from model.method import Method
from runtime.errors import UserError

DEFAULT = "smgarn"                        # the one place outside its folder that names a model
MODELS = sorted(path.parent.name for path in Path(__file__).parent.glob("*/__init__.py"))


FACE = ("RECIPE", "add_arguments", "build", "from_official")      # what every package has


def package(name: str) -> ModuleType:
    """Return a model's package: RECIPE, add_arguments, build, from_official.

    UserError lists the known models, or names the file and line of what keeps a package from being imported.
    """
    key = name.lower()
    if key not in MODELS:
        raise UserError(f"unknown model '{name}' in --model; known: {', '.join(MODELS)}")
    try:
        found = importlib.import_module(f"model.{key}")
    except Exception as error:            # a package of somebody else's may raise anything
        what = f"{type(error).__name__}: {_first_line(error)} ({_place(error, key)})"
        raise UserError(f"the model {key} cannot be imported: {what}") from error
    missing = [part for part in FACE if not hasattr(found, part)]
    if missing:
        raise UserError(f"the model {key} cannot be used: model/{key}/__init__.py does not define {', '.join(missing)}")
    return found


def _first_line(error: Exception) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error).partition("\n")[0]


def _place(error: Exception, key: str) -> str:
    """Return `file, line N` of an error: of a syntax error its own, else the last line of the model's folder that ran."""
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        file, line = next(((frame.filename, frame.lineno) for frame in reversed(frames) if key in Path(frame.filename).parts),
                          (f"model/{key}/__init__.py", 1))
    root = Path(__file__).parent.parent
    return f"{Path(file).relative_to(root) if Path(file).is_relative_to(root) else file}, line {line}"


def templates() -> dict[str, tuple[str, dict]]:
    """Return the templates of all models whose packages can be imported: {name: (model, flags that it sets)}."""
    found: dict[str, tuple[str, dict]] = {}
    for name in MODELS:
        with contextlib.suppress(UserError):
            found |= {template: (name, flags) for template, flags in getattr(package(name), "TEMPLATES", {}).items()}
    return found


def own_flags(name: str) -> dict[str, argparse.Action]:
    """Return the flags that a model's network depends on, by name: what `add_arguments` declares and model files state."""
    holder = argparse.ArgumentParser(add_help=False)
    package(name).add_arguments(holder)
    return {action.dest: action for action in holder._actions}


def build(args) -> Method:
    """Return the method of args.model: the network alone, nothing that only training needs."""
    return package(args.model).build(args)
