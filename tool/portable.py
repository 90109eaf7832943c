"""Model files as safetensors files, and folders of them with a model card."""
import hashlib
import os
import shutil
import uuid
from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor

import model
from model import names, weights
from runtime import safetensors
from runtime.errors import Failure
from runtime.files import make_folder, sync_folder, temporary, write_bytes, write_text
from tool import card, programs

NAME = "model.safetensors"                # of the weights in a folder, as model hubs expect it


def write_file(source: card.Source, output: Path, half: bool) -> str:
    """Write a safetensors file that loads again as the same network, and return a description of it; Failure if it does not."""
    content = weights.model_content(source.method, Namespace(**source.flags), source.note)
    theirs = names.released(source.method)
    content |= {"names": "own"} if theirs is None else {"names": "released", "state": theirs}
    if half:
        content["state"] = {key: halved(value) for key, value in content["state"].items()}
    data = safetensors.encoded(content)
    with temporary(output) as part:
        write_bytes(part, data)
        found = _check(source, part, half)
    named = "names of this program" if theirs is None else "names of the released files"
    return f"{source.flags['model']}, {programs.in_words(data)}, {'float16, ' if half else ''}{named}; {found}"


def halved(value: Tensor) -> Tensor:
    """Return the weights of a layer in float16; vectors, such as biases and the statistics of norms, stay as they are."""
    return value.half() if value.is_floating_point() and value.dim() > 1 else value


def _check(source: card.Source, path: Path, half: bool) -> str:
    name = source.flags["model"]
    again = weights.load(path, {flag: source.flags[flag] for flag in model.code_flags(name) if flag in source.flags})
    if half:
        with torch.inference_mode():
            return programs.check(source.method, again.restore, half=True)
    first, second = source.method.network.state_dict(), again.network.state_dict()
    wrong = [key for key, value in first.items() if not torch.equal(value, second[key])]
    if wrong:
        raise Failure(f"the exported file was read back and '{wrong[0]}' has other values; it was not saved")
    return f"read back, all {len(first)} tensors are equal"


def write_folder(source: card.Source, output: Path, half: bool) -> str:
    """Write a new folder with the weights and a model card, README.md, and return a description; without network, all or nothing."""
    part = make_folder(output.with_name(f".{uuid.uuid4().hex[:12]}.part"))
    try:
        found = write_file(source, part / NAME, half)
        digest = hashlib.sha256((part / NAME).read_bytes()).hexdigest()
        write_text(part / "README.md", card.text(source, output.name, NAME, digest, found))
        os.rename(part, output)
        sync_folder(output.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return f"{NAME} and README.md: {found}"
