"""Backends: what computes a network besides eager PyTorch. Each one is compared with PyTorch on a picture before it is used."""
import contextlib
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data import demo
from model.method import Method
from restore import exported
from runtime import VERSION, files, process
from runtime.errors import Failure, UserError, short

NAMES = ("torch", "compile", "onnxruntime", "openvino", "auto")
PACKAGES = {"onnxruntime": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
EXACT = 1e-4                              # single: greatest difference from PyTorch
MEAN, PSNR = 0.5, 40.0                    # bf16: greatest mean difference in levels of 255, and least PSNR in dB, from PyTorch in single
SIDE = 256                                # side in pixels of the picture on which backends are compared and timed
RUNS = 3                                  # runs of which the median time is taken

Run = Callable[[Tensor], Tensor]


class Backend(NamedTuple):
    """The name of a backend, and the function that computes (B, 3, H, W) to the same shape with it."""
    name: str
    run: Run


class Unfit(Exception):
    """A backend cannot be used; the message says why."""


def choose(method: Method, wanted: str, precision: str, say: Callable[[str], None]) -> Backend:
    """Return the backend `wanted` for a method, or PyTorch if it cannot be used; `say` receives one line that states what was done.

    `auto` is the fastest backend that is installed and agrees with PyTorch. Its choice is stored, and later starts of the program
    load and compare only this backend.
    """
    eager = Backend("torch", method.restore)
    if wanted == "torch":
        return eager
    if wanted == "auto":
        return _fastest(method, eager, precision, say)
    try:
        return _checked(method, wanted, precision, say)
    except Unfit as error:
        say(f"the backend {wanted} is not used, because {error}; torch computes instead")
        return eager


def _fastest(method: Method, eager: Backend, precision: str, say: Callable[[str], None]) -> Backend:
    place = _cached(method, f"{precision}-{torch.get_num_threads()}.json")
    known = _stored_choice(place)
    found, reasons = [eager], []
    for name in (known,) if known in PACKAGES else () if known else PACKAGES:
        try:
            found.append(_checked(method, name, precision, say))
        except Unfit as error:
            reasons.append(f"{name}: {error}")
    if known and found[-1].name == known:
        return found[-1]
    with torch.inference_mode(), process.autocast(precision), process.exact_convolutions():
        seconds = {each.name: _median(each.run, _picture().to(process.device())) for each in found}
    best = min(found, key=lambda each: seconds[each.name])
    files.write_json(place, {"backend": best.name})
    say("backend auto: " + ", ".join(f"{name} {value:.3f} s" for name, value in seconds.items())
        + f" for {SIDE}x{SIDE} pixels; {best.name} is used" + "".join(f"; {reason}" for reason in reasons))
    return best


def _stored_choice(place: Path) -> str:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        name = json.loads(place.read_text(encoding="utf-8"))["backend"]
        return name if name in NAMES[:-1] else ""
    return ""


def _median(run: Run, x: Tensor) -> float:
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        run(x).cpu()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[RUNS // 2]


def _checked(method: Method, name: str, precision: str, say: Callable[[str], None]) -> Backend:
    """Open a backend and compare it with PyTorch; raises Unfit. A stored export that differs is made once more."""
    start, missing = time.perf_counter(), [each for each in PACKAGES.get(name, ()) if not _is_installed(each)]
    if missing:
        raise Unfit(f"it needs the package{'s' * (len(missing) > 1)} {', '.join(missing)}: pip install {' '.join(missing)}")
    if name == "compile":
        backend = Backend(name, _compiled(method))
        difference = _difference(method, backend.run, precision)
        made = "compiled"
    else:
        if process.device().type != "cpu":
            raise Unfit("it computes on the CPU only")
        place = _cached(method, "model.onnx")
        stored = place.is_file()
        try:
            backend = Backend(name, OPENERS[name](method, place, precision))
            difference = _difference(method, backend.run, precision)
        except Unfit:
            if not stored:
                raise
            place.unlink()
            return _checked(method, name, precision, say)
        made = f"{'opened' if stored else 'exported'} {place}"
    say(f"backend {name}, {precision}: {made} in {time.perf_counter() - start:.1f} s; {difference}")
    return backend


def _is_installed(package: str) -> bool:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version(package)
        return True
    return False


def _difference(method: Method, run: Run, precision: str) -> str:
    """Return in words how a backend differs from PyTorch in single precision on a photo; raises Unfit if it is too much."""
    x = _picture().to(process.device())
    with torch.inference_mode(), process.exact_convolutions():
        expected = method.restore(x).float().cpu()
        try:
            with process.autocast(precision):
                found = run(x).float().cpu()
        except Exception as error:        # the runtimes raise many types of exceptions
            raise Unfit(f"it cannot compute this network: {short(error, 200)}") from error
    if found.shape != expected.shape:
        raise Unfit(f"its result has the shape {tuple(found.shape)} instead of {tuple(expected.shape)}")
    change = (found - expected).abs()
    most, levels = change.max().item(), change.mean().item() * 255
    psnr = -10 * float(np.log10(max(change.square().mean().item(), 1e-20)))
    if precision == "single":
        if not most <= EXACT:             # also true for NaN
            raise Unfit(f"its result differs from PyTorch's by {most:.2g}, more than {EXACT:g}")
        return f"its result differs from PyTorch's by at most {most:.1e}"
    if not (levels <= MEAN and psnr >= PSNR):
        raise Unfit(f"its result differs from PyTorch's in single precision by {levels:.2f} levels of 255 on average (limit {MEAN}), "
                    f"PSNR {psnr:.1f} dB (limit {PSNR:g})")
    return f"its result differs from PyTorch's in single precision by {levels:.2f} levels of 255 on average, PSNR {psnr:.1f} dB"


def _picture() -> Tensor:
    """Return a photo with a little noise, (1, 3, SIDE, SIDE)."""
    photo = demo.photos("test")["cat"][20:20 + SIDE, 100:100 + SIDE]
    x = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None] / 255
    return (x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def _cached(method: Method, name: str) -> Path:
    """Return the path of a file in the cache of backends for these weights, this machine's packages and this program."""
    digest = hashlib.sha256(repr((VERSION, torch.__version__, method.built_from, str(method.network))).encode())
    for key, value in method.network.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy() if value.numel() else b"")
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        digest.update((importlib.metadata.version(package) if _is_installed(package) else "-").encode())
    return files.make_folder(files.cache() / "backends" / digest.hexdigest()[:32]) / name


def _onnx(method: Method, place: Path) -> bytes:
    """Return the method as an ONNX file, exported once and then read from `place`; raises Unfit."""
    if not place.is_file():
        try:
            content = exported.as_onnx(exported.traced(method, "network"), {"model": "network"})
        except (Failure, UserError) as error:
            raise Unfit(str(error)) from error
        with files.temporary(place) as part:
            part.write_bytes(content)
    return place.read_bytes()


def _compiled(method: Method) -> Run:
    return torch.compile(method.restore, dynamic=True)


def _onnxruntime(method: Method, place: Path, precision: str) -> Run:
    if precision != "single":
        raise Unfit(f"it does not compute in {precision} on a CPU")
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(_onnx(method, place), options, providers=["CPUExecutionProvider"])
    return _padded(method, lambda x: session.run(None, {"input": x})[0])


def _openvino(method: Method, place: Path, precision: str) -> Run:
    import openvino
    core = openvino.Core()
    if precision not in ("single", "bf16") or (precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")):
        raise Unfit(f"it does not compute in {precision} on this processor")
    settings = {"INFERENCE_PRECISION_HINT": "f32" if precision == "single" else "bf16", "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = core.compile_model(core.read_model(_onnx(method, place)), "CPU", settings).create_infer_request()
    return _padded(method, lambda x: request.infer({0: x})[0].copy())


OPENERS = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def _padded(method: Method, run: Callable[[np.ndarray], np.ndarray]) -> Run:
    """Return a function of tensors for one of arrays; images that are too small for the exported network are computed by PyTorch."""
    least = exported.smallest(method)

    def computed(x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < least:
            return method.restore(x)
        return torch.from_numpy(run(x.float().contiguous().numpy()))

    return computed
