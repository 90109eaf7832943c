"""Model files that describe themselves."""
import importlib
from argparse import Namespace
from pathlib import Path

from torch import Tensor

import model
from model.method import Method
from runtime.errors import UserError
from runtime.files import read_tensors

FORMAT = "unweather model 1"
SHARED_ARGUMENTS = ("rgb_range", "n_colors")          # flags of all models that a network depends on


def model_content(method: Method, args, note: dict) -> dict:
    """Return what a model file holds: the model's name, its arguments, the weights and a note (epoch, data, numbers)."""
    arguments = {name: getattr(args, name) for name in (*model.own_flags(args.model), *SHARED_ARGUMENTS)}
    weights = {key: value.detach().cpu() for key, value in method.network.state_dict().items()}
    return {"format": FORMAT, "model": args.model, "arguments": arguments, "note": note, "state": weights}


def describe(path: str | Path) -> dict:
    """Return what a file of ours states of itself, as flags: model, the network's own, data_train, data_range.

    A foreign file, a released one say, states nothing: {}.
    """
    content = read_tensors(path)
    if not _ours(content):
        return {}
    name, arguments, note = content["model"], content["arguments"], content["note"]
    known = (*model.own_flags(name), *SHARED_ARGUMENTS)
    if set(arguments) != set(known):
        raise UserError(f"{path} was written by another version of {name}: it states {', '.join(arguments)}, "
                        f"but the model takes {', '.join(known)}")
    return {"model": name, **arguments, **{key: note[key] for key in ("data_train", "data_range") if key in note}}


def load_weights(method: Method, path: str, name: str) -> str:
    """Load a model file, ours or the released one of model `name`, into a method; return a line on what matched.

    Every tensor must match; UserError says which do not.
    """
    content = read_tensors(path)
    if _ours(content):
        if content["model"] != name:
            raise UserError(f"{path} is a checkpoint of the model {content['model']}, not of {name}; "
                            f"name a file of {name}, or --model {content['model']}")
        state, origin = content["state"], "own file"
    else:
        package = importlib.import_module(type(method).__module__)         # a backbone's own, where a system has several
        state, origin = package.from_official(_released(content)), "released file"
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
    return f"{path} ({origin}): {len(fitting)} of {len(expected)} tensors matched"


def load(path: str | Path) -> Method:
    """Return a model ready to restore images, built from what its file states (see the README's Python example)."""
    stated = describe(path)
    if not stated:
        raise UserError(f"{path} does not say which model it is; load released files with --model and --pre_train")
    method = model.build(Namespace(**stated))
    load_weights(method, path, stated["model"])
    return method.eval()


def _ours(content: dict) -> bool:
    kinds = {"model": str, "arguments": dict, "note": dict, "state": dict}
    return content.get("format") == FORMAT and all(isinstance(content.get(key), kind) for key, kind in kinds.items())


def _released(content: dict) -> dict[str, Tensor]:
    """Return the weights of a released file: bare, or under one of the usual names, `module.` taken off."""
    for key in ("state_dict", "params_ema", "params", "model"):
        if isinstance(content.get(key), dict):
            content = content[key]
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _shape(value: object) -> tuple | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None
