"""Engines, which compute a method's network instead of eager PyTorch: torch.compile, onnxruntime and OpenVINO."""
import contextlib
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model import tiling
from model.method import Method
from restore import programs, splits
from runtime import files
from runtime.errors import Failure, UserError

SUM = 32                                  # bytes of the checksum at the start of a file in the cache
FIXED = 3                                 # number of shapes for which OpenVINO has a program of its own; one is that of the comparison

Run = Callable[[Tensor], Tensor]
Engine = tuple[Run, Callable[[], object]] # computes (B, 3, H, W) to the same shape; frees the memory that it keeps between two runs


class Unfit(Exception):
    """A backend cannot be used; the message says why."""


def stored(place: Path) -> bytes | None:
    """Return the exported network in a file of the cache, None if it is missing or damaged: no parser sees a damaged file."""
    with contextlib.suppress(OSError):
        whole = place.read_bytes()
        if hashlib.sha256(whole[SUM:]).digest() == whole[:SUM]:
            return whole[SUM:]
    return None


def onnx(method: Method, place: Path) -> bytes:
    """Return the network as an ONNX file without padding, exported once and then read from `place`; raises Unfit."""
    content = stored(place)
    if content is None:
        try:
            content, _ = programs.as_onnx(programs.traced(method, "network", padded=False), {"model": "network"})
            content = splits.removed(content)
        except (Failure, UserError) as error:
            raise Unfit(str(error)) from error
        with files.temporary(place) as part:
            part.write_bytes(hashlib.sha256(content).digest() + content)
    return content


def _compile(method: Method, place: Path, precision: str) -> Engine:
    return _padded(method, torch.compile(programs.Predicted(method), dynamic=True)), lambda: None


def _onnxruntime(method: Method, place: Path, precision: str) -> Engine:
    content = onnx(method, place)
    import onnxruntime
    options, shrinking = onnxruntime.SessionOptions(), onnxruntime.RunOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    smallest = {"input": tiling.extended(torch.zeros(1, 3, 1, 1), method.multiple_of, method.least_side).numpy()}
    return _arrays(method, lambda x: session.run(None, {"input": x})[0]), lambda: session.run(None, smallest, shrinking)


@functools.cache
def core():
    """Return the one Core of OpenVINO in this process; after the end of a second one a fork crashed (2026.4.1)."""
    import openvino
    return openvino.Core()


def _openvino(method: Method, place: Path, precision: str) -> Engine:
    model = core().read_model(onnx(method, place))
    settings = {"INFERENCE_PRECISION_HINT": "f32" if precision == "single" else "bf16", "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(), "ENABLE_CPU_PINNING": False}

    def opened():
        compiled = core().compile_model(model, "CPU", settings)
        return compiled, compiled.create_infer_request()

    anywhere = last = opened()
    seen: set[tuple[int, ...]] = set()
    fixed: dict[tuple[int, ...], tuple] = {}              # programs for one shape are faster (docs/restoring.md)

    def run(x: np.ndarray) -> np.ndarray:
        nonlocal last
        used = fixed.get(x.shape, anywhere)
        new = used is anywhere and x.shape in seen and len(fixed) < FIXED
        if new or used is not last:
            release()                     # one program at a time keeps memory
        if new:
            model.reshape(x.shape)
            used = fixed[x.shape] = opened()
        seen.add(x.shape)
        last = used
        return used[1].infer({0: x})[0]

    def release() -> None:
        last[0].release_memory()

    return _arrays(method, run), release


OPENERS = {"compile": _compile, "onnxruntime": _onnxruntime, "openvino": _openvino}


def _padded(method: Method, run: Run) -> Run:
    """Return a function for images of any size."""
    return lambda x: tiling.padded(x, run, method.multiple_of, method.least_side)


def _arrays(method: Method, run: Callable[[np.ndarray], np.ndarray]) -> Run:
    """Return a function of images of any size for one of arrays; raises RuntimeError, whatever type the engine raises."""
    def computed(x: Tensor) -> Tensor:
        try:
            return torch.from_numpy(run(x.float().contiguous().numpy()))
        except Exception as error:
            raise RuntimeError(str(error)) from error

    return _padded(method, computed)
