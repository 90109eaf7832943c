"""The cases that are measured on a GPU: restoring a picture of two megapixels, and training steps with several batch sizes."""
import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from runtime import process
from tool.bench.networks import NETWORKS, STATED, Setting, built, network, photo, restored, training
from tool.bench.timing import PLAIN, Case, Way

SECONDS = 450                             # of all cases; a case that is over its part prepares no further way
PICTURE = (1152, 1728)                    # height and width in pixels: 2 megapixels
PATCH, BATCHES = 128, (4, 16, 64)
COMPILED = ("unet", "nafnet")             # networks that are also compiled, which takes up to a minute each time
COMPILE_SECONDS = 60


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
TRAINING = {"default": [], "half": ["--precision", "half"], "bf16": ["--precision", "bf16"]}


def every(setting: Setting) -> list[Case]:
    """Return the cases, each with its part of the time."""
    size, patch, batches = ((64, 64), 32, (2,)) if setting.quick else (PICTURE, PATCH, BATCHES)
    compiled = [name for name in setting.models if name in COMPILED]
    part = (SECONDS - COMPILE_SECONDS * len(compiled)) / (len(setting.models) * (1 + len(batches)))
    shape = f"{size[0]}x{size[1]}"

    def restored_by(name: str, modes: dict[str, Mode], restorer: dict[str, tuple[str, str]]) -> Callable[[], dict[str, Way]]:
        return functools.partial(restoring, setting, name, size, modes, restorer)
    return [*(Case("gpu", f"restore {name}, {shape}", restored_by(name, MODES, RESTORER), about=part) for name in setting.models),
            *(Case("gpu", f"train {name}, batch {batch}, patch {patch}", functools.partial(trained, setting, name, patch, batch),
                   "patches/s", batch, part)
              for name in setting.models for batch in batches),
            *(Case("gpu", f"restore {name}, {shape}, compiled", restored_by(name, COMPILED_MODES, COMPILED_RESTORER),
                   about=COMPILE_SECONDS) for name in compiled)]


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
        with convolutions(mode.tf32), process.autocast(mode.precision):
            return run(x.to(process.device()).contiguous(memory_format=layout))["image"]
    return call


def trained(setting: Setting, name: str, patch: int, batch: int) -> dict[str, Way]:
    """Return the ways of making a training step on a batch in memory, each with the settings of cuDNN that it chose, which are global."""
    ways = training(setting, name, patch, batch, TRAINING, rereads=False)
    plain = ways.pop(PLAIN)
    return {PLAIN: Way(lambda: within(plain.start, True), STATED),
            "float32 without TF32": Way(lambda: within(plain.start, False), STATED),
            **{title: Way(functools.partial(remembered, way), STATED) for title, way in ways.items()}}


def within(start: Callable, tf32: bool) -> Callable:
    """Return the call that `start` returns, made within PyTorch's default settings of cuDNN, with or without TF32."""
    call = start()

    def step():
        with convolutions(tf32):
            return call()
    return step


def remembered(way: Way) -> Callable:
    """Return the call of a way, made within the settings of cuDNN that its preparation leaves."""
    call = way.start()
    cudnn = torch.backends.cudnn
    chosen = dict(benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=cudnn.allow_tf32)

    def step():
        with cudnn.flags(enabled=True, **chosen):
            return call()
    return step


@contextlib.contextmanager
def convolutions(tf32: bool) -> Iterator[None]:
    """Compute the block's convolutions as PyTorch does by default, with or without TF32."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=tf32):
        yield
