"""The cases that are measured on a GPU: restoring a picture of two megapixels, and training steps with several batch sizes."""
import contextlib
import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from runtime import process
from tool.bench.networks import COMPILED_TRAINING, NETWORKS, STATED, Setting, built, network, photo, restored, training
from tool.bench.timing import PLAIN, Case, Way

SECONDS = 450                             # of all cases; a case that is over its part prepares no further way
PICTURE = (1152, 1728)                    # height and width in pixels: 2 megapixels
PATCH, BATCHES = 128, (4, 32)
STEPS = 5                                 # training steps of one call, after which the program waits for the GPU
COMPILED = ("unet", "nafnet")             # networks that are also compiled, which takes up to a minute each time
COMPILE_SECONDS = 50


class Mode(NamedTuple):
    """How PyTorch computes a network: precision of autocast, TF32 in float32, memory format, and whether torch.compile is used."""
    precision: str = "single"
    tf32: bool = True
    channels_last: bool = False
    compiled: bool = False


# plain: PyTorch's defaults, with which convolutions use TF32
MODES = {
    PLAIN: Mode(),
    "float32 without TF32": Mode(tf32=False),
    "channels_last": Mode(channels_last=True),
    "fp16": Mode("half"),
    "fp16, channels_last": Mode("half", channels_last=True),
    "bf16": Mode("bf16"),
    "bf16, channels_last": Mode("bf16", channels_last=True),
}
COMPILED_MODES = {
    PLAIN: Mode(),
    "compiled, bf16, channels_last": Mode("bf16", channels_last=True, compiled=True),
    "compiled": Mode(compiled=True),
}
# the framework's ways: backend and precision of the Restorer; flags of main.py
RESTORER = {"default": ("torch", "single"), "Restorer, half": ("torch", "half"), "Restorer, bf16": ("torch", "bf16")}
COMPILED_RESTORER = {"Restorer, compile, bf16": ("compile", "bf16")}
TRAINING = {"default": [], "half": ["--precision", "half"], "bf16": ["--precision", "bf16"],
            "--deterministic": ["--deterministic"]}


def every(setting: Setting) -> list[Case]:
    """Return the cases, each with its part of the time."""
    size, patch, batches = ((64, 64), 32, (2,)) if setting.quick else (PICTURE, PATCH, BATCHES)
    compiled = [name for name in setting.models if name in COMPILED]
    part = (SECONDS - 2 * COMPILE_SECONDS * len(compiled)) / (len(setting.models) * (1 + len(batches)))

    def restore(name: str, modes: dict[str, Mode], restorer: dict[str, tuple[str, str]], title: str, about: float) -> Case:
        return Case("gpu", f"restore {name}, {size[0]}x{size[1]}{title}",
                    functools.partial(restoring, setting, name, size, modes, restorer), about=about)

    def train(name: str, batch: int, more: dict[str, list[str]], title: str, about: float) -> Case:
        return Case("gpu", f"train {name}, batch {batch}, patch {patch}{title}",
                    functools.partial(trained, setting, name, patch, batch, more), "patches/s", batch * STEPS, about)
    return [*(restore(name, MODES, RESTORER, "", part) for name in setting.models),
            *(train(name, batch, TRAINING, "", part) for name in setting.models for batch in batches),
            *(restore(name, COMPILED_MODES, COMPILED_RESTORER, ", compiled", COMPILE_SECONDS) for name in compiled),
            *(train(name, batches[-1], COMPILED_TRAINING, ", compiled", COMPILE_SECONDS) for name in compiled)]


def restoring(setting: Setting, name: str, size: tuple[int, int], modes: dict[str, Mode],
              restorer: dict[str, tuple[str, str]]) -> dict[str, Way]:
    """Return the ways of restoring a picture: the network in each mode, and the Restorer with each backend and precision."""
    flags, x = [*network(setting, name, NETWORKS[name].restore), "--test_only"], photo(*size)
    return {**{title: Way(functools.partial(applied, flags, x, mode), STATED) for title, mode in modes.items()},
            **{title: Way(functools.partial(restored, flags, x, *chosen), STATED) for title, chosen in restorer.items()}}


def applied(flags: list[str], x: Tensor, mode: Mode) -> Callable[[], Tensor]:
    """Return a call that applies a network in a mode."""
    _, method = built(flags)
    layout = torch.channels_last if mode.channels_last else torch.contiguous_format
    method = method.to(process.device(), memory_format=layout).eval()
    run = torch.compile(method.predict) if mode.compiled else method.predict

    @torch.no_grad()
    def call() -> Tensor:
        with convolutions(mode.tf32)(), process.autocast(mode.precision):
            return run(x.to(process.device()).contiguous(memory_format=layout))["image"]
    return call


def trained(setting: Setting, name: str, patch: int, batch: int, more: dict[str, list[str]]) -> dict[str, Way]:
    """Return the ways of making some steps on a batch in memory; each one sets its own settings of cuDNN, which are global."""
    ways = training(setting, name, patch, batch, more, rereads=False)
    plain = ways.pop(PLAIN)
    return {PLAIN: Way(lambda: steps(plain.start(), convolutions(True)), STATED),
            "plain, float32 without TF32": Way(lambda: steps(plain.start(), convolutions(False)), STATED),
            **{title: Way(functools.partial(remembered, way), STATED) for title, way in ways.items()}}


def steps(step: Callable, settings: Callable[[], contextlib.AbstractContextManager]) -> Callable:
    """Return a call that makes STEPS steps within some settings and returns the loss of the first one."""
    def call():
        with settings():
            first, *_ = [step() for _ in range(STEPS)]
        return first
    return call


def remembered(way: Way) -> Callable:
    """Return the call of a way, made within the settings of cuDNN that its preparation leaves."""
    step, cudnn = way.start(), torch.backends.cudnn
    return steps(step, functools.partial(cudnn.flags, enabled=True, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic,
                                         allow_tf32=cudnn.allow_tf32))


def convolutions(tf32: bool) -> Callable[[], contextlib.AbstractContextManager]:
    """Return the settings of cuDNN that PyTorch has by default, with or without TF32."""
    return functools.partial(torch.backends.cudnn.flags, enabled=True, benchmark=False, deterministic=False, allow_tf32=tf32)
