"""Model files: the weights of a network with what builds that network again.

A file of ours is a dictionary of `format`, `version` (of the program that wrote it, from 0.2.0 on), `model` (a package's name),
`arguments` (the flags of the package's `add_arguments`, and SHARED_ARGUMENTS), `note` (epoch, score, data) and `state` (the
network's state_dict). Such files stay readable:

- An argument that a file lacks gets the default that `add_arguments` gives it. RECIPE does not count, because it describes how
  a new network is trained and may change. So the default of a new argument is what the network was before it had the argument.
- A package that cannot keep to this, or that renames or drops an argument, has a function `translate(arguments, version) -> dict`.
  It gets the arguments that a file states and the version that wrote them as numbers, (0, 1, 0), and returns the arguments
  that stand for the same network now; it may leave out those that have their default.
- An argument that is then unknown is refused, as is a value that could not be typed as that flag.
- FORMAT changes only when an older program would misread a new file; programs read all formats before their own.
"""
import argparse
import functools
import importlib
import os
import re
import reprlib
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

import model
from data import flags as data_flags
from model.method import Method
from runtime import VERSION, files
from runtime.arguments import converted
from runtime.errors import UserError

FORMAT = "unweather model 1"
PARTS = {"model": str, "arguments": dict, "note": dict, "state": dict}
FIRST = "0.1.0"                                       # the version of the files that state none
SHARED_ARGUMENTS = ("rgb_range", "n_colors")          # flags of all models that a network depends on


class ModelFile(NamedTuple):
    """What a model file holds; of a foreign file `model` is '' and `state` is all that is in the file."""

    model: str
    arguments: dict
    note: dict
    state: dict


def model_content(method: Method, args, note: dict) -> dict:
    """Return what a model file holds: the model's name, its arguments, the weights and a note (epoch, data, numbers)."""
    arguments = {name: getattr(args, name) for name in _known(args.model)}
    weights = {key: value.detach().cpu() for key, value in method.network.state_dict().items()}
    return {"format": FORMAT, "version": VERSION, "model": args.model, "arguments": arguments, "note": note, "state": weights}


def read(path: str | Path) -> ModelFile:
    """Return what a model file holds, its arguments complete and checked; UserError for a file that cannot be read.

    The last file stays in memory until `forget`, so that a start reads and hashes a file once; one that has changed since is
    read again.
    """
    try:
        status = os.stat(path)
    except OSError:                       # the sentence on it follows from reading
        return _read(str(path), ())
    return _read(str(path), (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))


def forget() -> None:
    """Free the memory of the file that was read last."""
    _read.cache_clear()


@functools.lru_cache(maxsize=1)
def _read(path: str, identity: tuple[int, ...]) -> ModelFile:
    content = files.read_tensors(path)
    stated = content.get("format")
    if not isinstance(stated, str) or not stated.startswith("unweather "):
        return ModelFile("", {}, {}, content)
    if stated.startswith("unweather state"):
        raise UserError(f"{path} is the state of a training, not a model file; name a model file, such as model_best.pt beside it")
    if stated != FORMAT:
        raise UserError(f"{path} has the format '{stated}'{files.origin(content)}, but unweather {VERSION} reads '{FORMAT}'; "
                        "use the version that wrote it, or a newer one")
    for key, kind in PARTS.items():
        if not isinstance(content.get(key), kind):
            raise UserError(f"{path}{files.origin(content)} is no whole model file: it lacks '{key}'")
    if content["model"] not in model.MODELS:
        raise UserError(f"{path}{files.origin(content)} is of the unknown model '{content['model']}'; known: {', '.join(model.MODELS)}")
    return ModelFile(content["model"], _arguments(path, content), content["note"], content["state"])


def _arguments(path: str, content: dict) -> dict:
    """Return the arguments of a file as this version would have written them; UserError for what it does not know."""
    name, stated, version = content["model"], content["arguments"], content.get("version", FIRST)
    translate = getattr(model.package(name), "translate", None)
    if translate:
        stated = translate(dict(stated), tuple(map(int, re.findall("[0-9]+", str(version))[:3])))
    known, result = _known(name), {}
    for key in stated:
        if key not in known:
            raise UserError(f"{path}{files.origin(content)} states the argument '{key}', which {name} does not have in unweather "
                            f"{VERSION}: it takes {', '.join(known)}; use the version that wrote the file, or a newer one")
    for key, action in known.items():
        value = stated.get(key, action.default)
        try:
            result[key] = converted(action, value)
        except ValueError as error:
            raise UserError(f"{path}: the argument '{key}' of {name} cannot be {' '.join(reprlib.repr(value).split())}; "
                            f"its default is {action.default!r}") from error
    return result


def _known(name: str) -> dict[str, argparse.Action]:
    """Return the flags that the files of a model state, by name."""
    holder = argparse.ArgumentParser(add_help=False)
    data_flags.add_arguments(holder)
    return model.own_flags(name) | {action.dest: action for action in holder._actions if action.dest in SHARED_ARGUMENTS}


def describe(path: str | Path) -> dict:
    """Return what a file of ours states of itself, as flags: model, the network's own, data_train, data_range.

    A foreign file, a released one for example, states nothing: {}.
    """
    file = read(path)
    if not file.model:
        return {}
    return {"model": file.model, **file.arguments, **{key: file.note[key] for key in ("data_train", "data_range") if key in file.note}}


def load_weights(method: Method, path: str | Path, name: str, again: bool = False) -> str:
    """Load a model file, ours or the released one of model `name`, into a method; return a line on what matched.

    Every tensor must match; UserError says which do not. With `again` the file stays in memory for the next call.
    """
    file = read(path)
    if not again:
        forget()
    if file.model and file.model != name:
        raise UserError(f"{path} is a checkpoint of the model {file.model}, not of {name}; name a file of {name}, or --model {file.model}")
    if file.model:
        state, source = file.state, "own file"
    else:
        package = importlib.import_module(type(method).__module__)         # a backbone's own, where a system has several
        state, source = package.from_official(_released(file.state)), "released file"
    expected = method.network.state_dict()
    fitting = [key for key in expected if _shape(state.get(key)) == tuple(expected[key].shape)]
    spare = [key for key in state if key not in expected]
    if len(fitting) < len(expected) or spare:
        wrong = next((key for key in expected if key not in fitting), None)
        detail = (f"'{wrong}' should have the shape {tuple(expected[wrong].shape)} and "
                  f"{'has ' + str(_shape(state[wrong])) if wrong in state else 'is missing'}" if wrong
                  else f"'{spare[0]}' is not part of the model")
        raise UserError(f"{path} does not fit the model {name}: {len(fitting)} of its {len(expected)} tensors match, "
                        f"{len(spare)} are unknown; {detail}; check --model and the width flags")
    method.network.load_state_dict(state)
    return f"{path} ({source}): {len(fitting)} of {len(expected)} tensors matched"


def load(path: str | Path) -> Method:
    """Return a model ready to restore images, built from what its file states (see the README's Python example)."""
    stated = describe(path)
    if not stated:
        raise UserError(f"{path} does not say which model it is; load released files with --model and --pre_train")
    method = model.build(Namespace(**stated))
    load_weights(method, path, stated["model"])
    return method.eval()


def _released(content: dict) -> dict[str, Tensor]:
    """Return the weights of a released file: bare, or under one of the usual names, `module.` taken off."""
    for key in ("state_dict", "params_ema", "params", "model"):
        if isinstance(content.get(key), dict):
            content = content[key]
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _shape(value: object) -> tuple | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None
