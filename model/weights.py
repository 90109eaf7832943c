"""Model files: the weights of a network, and the arguments from which the network is built again.

A file of this program is a dictionary with the keys `format`, `version` (of the program that wrote the file, since 0.2.0), `model`
(the name of a package), `arguments` (the flags of the package's `add_arguments`, and SHARED_ARGUMENTS), `note` (epoch, score, data)
and `state` (the network's state_dict). Files of older versions remain readable by these rules:

- An argument that a file lacks gets the default that `add_arguments` states. RECIPE is not used for this, because it describes
  how a new network is trained and may change. So the default of a new argument must give the network as it was before.
- A package that cannot follow this rule, or that renames or drops an argument, defines `translate(arguments, version) -> dict`.
  The function receives the arguments of a file and the version that wrote them as numbers, (0, 1, 0), and returns the arguments
  that build the same network now; it may leave out arguments that have their default.
- After that, an unknown argument is refused, and so is a value that the flag does not accept.
- The network of a package with FROM_ARGUMENTS = False needs more than the arguments: code that its user names, or the weights themselves.
  Such a network is not built when its file is read, but only when it is loaded.
- FORMAT changes only if an older program would read a new file wrongly; a program reads all earlier formats.

The same content is also read from safetensors files (runtime/safetensors.py), which tool.export writes.
"""
import argparse
import contextlib
import functools
import importlib
import os
import re
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

import model
from data import flags as data_flags
from model import names
from model.method import Method
from runtime import VERSION, files, zoo
from runtime.arguments import converted
from runtime.errors import UserError, short, shown

FORMAT = "unweather model 1"
PARTS = {"model": str, "arguments": dict, "note": dict, "state": dict}
FIRST = "0.1.0"                                       # the version of files that do not state a version
SHARED_ARGUMENTS = ("rgb_range", "n_colors")          # flags of the program that a network depends on


class ModelFile(NamedTuple):
    """The contents of a model file; for a file of another program, `model` is '' and `state` is the whole content.

    released: the tensors have the names of the model's released files (in a safetensors file of this program they may have).
    """

    model: str
    arguments: dict
    note: dict
    state: dict
    released: bool = False


def model_content(method: Method, args, note: dict) -> dict:
    """Return the contents of a model file: the model's name, its arguments, the weights and a note (epoch, data, numbers)."""
    arguments = {name: getattr(args, name) for name in known(args.model)}
    weights = {key: value.detach().cpu() for key, value in method.network.state_dict().items()}
    return {"format": FORMAT, "version": VERSION, "model": args.model, "arguments": arguments, "note": note, "state": weights}


def read(path: str | Path) -> ModelFile:
    """Return the contents of a model file, with complete and checked arguments; raises UserError if it cannot be read.

    `zoo:NAME` is one of the files that come with the program (runtime/zoo.py). The last file is kept in memory until `forget` is
    called, so that a start of the program reads and hashes it once. A file that has changed since then is read again.
    """
    path = zoo.located(path)
    try:
        status = os.stat(path)
    except OSError:                       # _read raises the UserError
        return _read(str(path), ())
    return _read(str(path), (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))


def forget() -> None:
    """Free the memory that the last file occupies."""
    _read.cache_clear()


@functools.lru_cache(maxsize=1)
def _read(path: str, identity: tuple[int, ...]) -> ModelFile:
    content = files.read_tensors(path)
    stated = content.get("format")
    if not isinstance(stated, str) or not stated.startswith("unweather "):
        return ModelFile("", {}, {}, content, released=True)
    if stated.startswith("unweather state"):
        raise UserError(f"{path} is the state of a training, not a model file; give a model file, for example model_best.pt beside it")
    if stated != FORMAT:
        raise UserError(f"{path} has the format '{short(stated)}'{files.origin(content)}, but unweather {VERSION} reads '{FORMAT}'; "
                        "use the version that wrote it, or a newer one")
    for key, kind in PARTS.items():
        if not isinstance(content.get(key), kind):
            raise UserError(f"{path}{files.origin(content)} is not a complete model file: it lacks '{key}'")
        if kind is dict and not all(isinstance(name, str) for name in content[key]):
            raise UserError(f"{path}{files.origin(content)} is not a model file: a name in '{key}' is not a text")
    if content["model"] not in model.MODELS:
        raise UserError(f"{path}{files.origin(content)} is of the unknown model '{short(content['model'])}'; "
                        f"known: {', '.join(model.MODELS)}")
    file = ModelFile(content["model"], _arguments(path, content), content["note"], content["state"], content.get("names") == "released")
    if from_arguments(file.model):
        _check_size(path, file)
    return file


def from_arguments(name: str) -> bool:
    """Return whether the arguments in a model's files suffice to build its network."""
    return getattr(model.package(name), "FROM_ARGUMENTS", True)


def _check_size(path: str, file: ModelFile) -> None:
    """Build the network of a file without memory, on the meta device; raises UserError if it is larger than the file."""
    try:
        with torch.device("meta"), bounded(file.state):
            model.build(Namespace(model=file.model, **file.arguments))
    except Exception as error:            # the layers of a network raise many types of errors for sizes that do not fit
        stated = ", ".join(f"{key} {short(value)}" for key, value in file.arguments.items())
        raise UserError(f"{path}: {file.model} cannot be built from the arguments in the file, {stated}: {short(error, 200)}") from error


@contextlib.contextmanager
def bounded(state: dict, what: str = "they") -> Iterator[None]:
    """Raise UserError in the block as soon as the networks built there have more numbers than the weights `state` have bytes.

    A file may state any arguments, but its network is never larger than the file. The construction ends with the first
    parameter that is too much, so its time is bounded as well.
    """
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
                for value in state.values() if isinstance(value, Tensor)}
    room = sum(storages.values())

    def count(module: nn.Module, name: str, value: Tensor | None) -> None:
        nonlocal room
        lazy = isinstance(value, nn.parameter.UninitializedParameter)
        room -= value.numel() + 1 if value is not None and not lazy else 0               # 1: an empty parameter takes memory as well
        if room < 0:
            raise UserError(f"{what} describe a larger network than the file contains")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _arguments(path: str, content: dict) -> dict:
    """Return the arguments of a file as this version writes them; raises UserError for unknown arguments and wrong values."""
    name, stated, version = content["model"], content["arguments"], content.get("version", FIRST)
    translate = getattr(model.package(name), "translate", None)
    if translate:
        stated = translate(dict(stated), tuple(map(int, re.findall("[0-9]{1,9}", str(version))[:3])))
    flags, result = known(name), {}
    for key in stated:
        if key not in flags:
            raise UserError(f"{path}{files.origin(content)} states the argument '{short(key)}', which {name} does not have in unweather "
                            f"{VERSION}: it takes {', '.join(flags)}; use the version that wrote the file, or a newer one")
    for key, action in flags.items():
        value = stated.get(key, action.default)
        try:
            result[key] = converted(action, value)
        except ValueError as error:
            raise UserError(f"{path}: the argument '{key}' of {name} cannot be {shown(value)}; "
                            f"its default is {action.default!r}") from error
    return result


def known(name: str) -> dict[str, argparse.Action]:
    """Return by name the flags that the files of a model store."""
    holder = argparse.ArgumentParser(add_help=False)
    data_flags.add_arguments(holder)
    return model.own_flags(name) | {action.dest: action for action in holder._actions if action.dest in SHARED_ARGUMENTS}


def describe(path: str | Path) -> dict:
    """Return the flags that a model file states: model, the flags of its network, data_train, data_range.

    Returns {} for a file of another program, such as a released one, which states no flags.
    """
    file = read(path)
    if not file.model:
        return {}
    return {"model": file.model, **file.arguments, **{key: file.note[key] for key in ("data_train", "data_range") if key in file.note}}


def load_weights(method: Method, path: str | Path, name: str, again: bool = False) -> str:
    """Load a model file, of this program or released by the authors of model `name`, into a method; return a line for the log.

    Raises UserError unless every tensor matches. With `again` the file is kept in memory for the next call.
    """
    file = read(path)
    if not again:
        forget()
    if file.model and file.model != name:
        raise UserError(f"{path} is a checkpoint of the model {file.model}, not of {name}; "
                        f"give a file of {name}, or use --model {file.model}")
    expected = method.network.state_dict()
    source, candidates = ("own file", iter([file.state])) if file.model else ("released file", names.variants(file.state))
    if file.released:
        package = importlib.import_module(type(method).__module__)         # of the backbone, if the model has one
        candidates = map(package.from_official, candidates)
    state = names.best(candidates, expected)
    broken = next((key for key in expected if isinstance(state.get(key), Tensor) and not _is_finite(state[key], expected[key])), None)
    if broken:
        raise UserError(f"{path} is damaged: '{broken}' contains values that are not finite, so no image can be restored with it; "
                        "use weights that were saved earlier")
    fitting = names.fitting(state, expected)
    spare = [key for key in state if key not in expected]
    if len(fitting) < len(expected) or spare:
        wrong = next((key for key in expected if key not in fitting), None)
        detail = (f"'{wrong}' should have the shape {tuple(expected[wrong].shape)} and "
                  f"{_stated(state[wrong]) if wrong in state else 'is missing'}" if wrong
                  else f"'{spare[0]}' is not part of the model")
        raise UserError(f"{path} does not fit the model {name}: {len(fitting)} of its {len(expected)} tensors match, "
                        f"{len(spare)} are unknown; {detail}; check --model and the width flags")
    method.network.load_state_dict(state)
    return f"{path} ({source}): {len(fitting)} of {len(expected)} tensors matched"


def network_flags(path: str | Path, typed: dict | None = None) -> dict:
    """Return the flags from which the network of a file is built: those in the file, changed by `typed`, flags with their values.

    A file that does not state its model, such as a released one, needs `typed["model"]`; flags that are not in `typed` then have the
    defaults of the model's recipe. Raises UserError if the model is unknown, or is not that of the file.
    """
    stated, typed = describe(path), typed or {}
    if not stated and "model" not in typed:
        raise UserError(f"{path} does not state its model; name it with --model NAME (from Python: model=\"NAME\"), and its width if it is "
                        "not the default")
    if stated and typed.get("model", stated["model"]) != stated["model"]:
        raise UserError(f"{path} is a checkpoint of the model {stated['model']}, not of {typed['model']}; "
                        f"leave out --model or use --model {stated['model']}")
    return (stated or defaults(typed["model"])) | typed


def typed_for(path: str | Path, typed: dict | None) -> dict:
    """Return `typed`, flags of one model, for one of several files: {} if the file states another model."""
    return typed if typed and describe(path).get("model", typed["model"]) == typed["model"] else {}


def defaults(name: str) -> dict:
    """Return the flags that the files of a model store, with the values of its recipe, else their defaults."""
    recipe = model.package(name).RECIPE
    return {key: converted(action, recipe.get(key, action.default)) for key, action in known(name).items()}


def load(path: str | Path, typed: dict | None = None) -> Method:
    """Return a model that is ready to restore images, built from the arguments in its file and `typed` (see `network_flags`)."""
    flags = network_flags(path, typed)
    unknown = next((flag for flag in typed or {} if flag not in {"model", *known(flags["model"]), *model.code_flags(flags["model"])}), "")
    if unknown:
        raise UserError(f"{path}: the model {flags['model']} has no flag --{unknown}")
    for key, action in known(flags["model"]).items():
        try:
            flags[key] = converted(action, flags[key])
        except ValueError as error:
            raise UserError(f"{path}: the flag --{key} of {flags['model']} cannot be {shown(flags[key])}") from error
    measured = from_arguments(flags["model"])             # when the file was read
    with contextlib.nullcontext() if measured else bounded(next(names.variants(read(path).state)), f"{path}: the arguments"):
        method = model.build(Namespace(**flags, pre_train=str(path)))
    load_weights(method, path, flags["model"])
    return method.eval()


def _is_finite(value: Tensor, expected: Tensor) -> bool:
    return bool(value.to(expected.dtype).isfinite().all())


def _shape(value: object) -> tuple | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _stated(value: object) -> str:
    return f"has {_shape(value)}" if isinstance(value, Tensor) else f"has no shape, because it is {short(value)}"
