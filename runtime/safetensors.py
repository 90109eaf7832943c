"""Model files in the safetensors format: a header of names, shapes and texts, then the numbers; other programs read it as well.

The format keeps tensors and, in the header, texts. A file of this program has the keys of a model file (see model/weights.py) as
texts: `unweather.format`, `unweather.version`, `unweather.model`, `unweather.arguments` and `unweather.note` (both JSON), further
`unweather.names` (released or own: whose names the tensors have) and `unweather.sha256` of all these texts and tensors.
"""
import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from runtime.errors import UserError

MARK = "unweather."                       # begins the names of this program's texts
JSON = ("arguments", "note")              # values that are written as JSON


def encoded(content: dict) -> bytes:
    """Return the bytes of a safetensors file with a model file's content; tensors are copied, so they may share storage.

    Raises UserError for arguments or a note that are not plain values.
    """
    from safetensors.torch import save
    state = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in content["state"].items()}
    try:
        texts = {key: json.dumps(value) if key in JSON else str(value) for key, value in content.items() if key != "state"}
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError("the file's arguments or note hold other values than texts and numbers, so they cannot be written") from error
    texts["sha256"] = _digest(texts, state)
    return _ordered(save(state, {"format": "pt", **{MARK + key: text for key, text in texts.items()}}))


def _ordered(data: bytes) -> bytes:
    """Return a safetensors file with its texts in alphabetical order; the package writes them in another order every time."""
    header, numbers = _split(data)
    text = json.dumps(header | {"__metadata__": dict(sorted(header["__metadata__"].items()))}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)       # the numbers begin at a multiple of 8
    return b"".join((len(text).to_bytes(8, "little"), text, numbers))


def _split(data: bytes) -> tuple[dict, memoryview]:
    """Return the header of a safetensors file and its numbers."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), memoryview(data)[end:]


def decoded(path: str | Path, data: bytes) -> dict:
    """Return the content of a model file of this program, or the tensors by name of another safetensors file.

    Raises UserError for a wrong checksum; a damaged file raises errors of many types.
    """
    try:
        from safetensors.torch import load
    except ImportError as error:
        raise UserError(f"{path} is a safetensors file; reading it needs the package safetensors: pip install safetensors") from error
    state = load(data)
    stated = _split(data)[0].get("__metadata__", {})
    texts = {key.removeprefix(MARK): text for key, text in stated.items() if key.startswith(MARK)}
    if "format" not in texts:
        return state
    if texts.pop("sha256", "") != _digest(texts, state):
        raise UserError(f"{path} is damaged: its checksum is wrong")
    return {key: json.loads(text) if key in JSON else text for key, text in texts.items()} | {"state": state}


def is_safetensors(data: bytes) -> bool:
    """Return whether bytes begin like a safetensors file: the length of the header, then the header, a JSON object."""
    return data[8:9] == b"{"


def _digest(texts: dict[str, str], state: dict[str, Tensor]) -> str:
    total = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for key, value in sorted(state.items()):
        total.update(f"{key} {value.dtype} {tuple(value.shape)} ".encode("utf-8", "surrogatepass"))
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
