"""Backends: what computes a network besides eager PyTorch. Each one is compared with PyTorch on a picture before it is used."""
import contextlib
import hashlib
import importlib.metadata
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data import demo
from model.method import Method
from restore import engines
from restore.engines import OPENERS, Run, Unfit
from runtime import VERSION, files, process
from runtime.errors import UserError, short

NAMES = ("torch", "compile", "onnxruntime", "openvino", "auto")
PACKAGES = {"onnxruntime": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
VERSIONS = ("onnx", "onnxscript", "onnxruntime", "openvino")          # packages whose versions may change what is computed
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")                  # see _check_support
EXPORT = 3                                # to be raised when programs.py or splits.py export other programs
EXACT = 1e-4                              # single: greatest difference from PyTorch
MEAN, PSNR = 1.0, 40.0                    # bf16: greatest mean difference in levels of 255, and least PSNR in dB, from PyTorch in single
WORSE, LESS = 1.25, 2.0                   # or a difference at most this many times, and a PSNR at most so much below, that of its own bf16
SIZE = (256, 320)                         # of the picture on which backends are compared and timed; torch.compile specialises on squares
KEPT = 3                                  # number of backends that stay open
RUNS = 3                                  # runs of which the median time is taken

COMPILERS = ("g++", "clang++", "cl")      # torch.compile needs one of these, or the one that the variable CXX names


class Backend(NamedTuple):
    """The name of a backend, the function that computes (B, 3, H, W) to the same shape with it, one that frees what it keeps, and
    the precision in which it computes, '' for the one that was asked for."""
    name: str
    run: Run
    release: Callable[[], object] = lambda: None
    precision: str = ""


_open: dict[tuple, Backend] = {}          # the last KEPT backends


def choose(method: Method, wanted: str, precision: str, say: Callable[[str], None]) -> Backend:
    """Return the backend `wanted` for a method, or PyTorch if it cannot be used; `say` receives one line that states what was done.

    `auto` is the fastest backend that is installed and agrees with PyTorch. The last backends stay open, by the weights. Raises
    UserError for an unknown name.
    """
    if wanted not in NAMES:
        raise UserError(f"there is no backend '{wanted}'; there are {', '.join(NAMES)}")
    if wanted == "torch":
        return Backend("torch", method.restore)
    key = (wanted, precision, torch.get_num_threads(), _digest(method))
    if key not in _open:
        _open[key] = _fastest(method, precision, say) if wanted == "auto" else _named(method, wanted, precision, say)
        while len(_open) > KEPT:
            _open.pop(next(iter(_open)))
    return _open[key]


def _named(method: Method, wanted: str, precision: str, say: Callable[[str], None]) -> Backend:
    try:
        return _checked(method, wanted, precision, say)
    except Unfit as error:
        say(f"the backend {wanted} is not used, because {error}; torch computes instead")
        return Backend("torch", method.restore)


def _fastest(method: Method, precision: str, say: Callable[[str], None]) -> Backend:
    found, reasons = [Backend("torch", method.restore)], []
    for name in PACKAGES:
        try:
            found.append(_checked(method, name, precision, say))
        except Unfit as error:
            reasons.append(f"; not {name}, because {error}")
    x = _picture().to(process.device())
    seconds: dict[str, list[float]] = {each.name: [] for each in found}
    with torch.inference_mode(), process.autocast(precision), process.exact_convolutions():
        for _ in range(RUNS):             # interleaved, so that another program slows all of them
            for each in found:
                start = time.perf_counter()
                each.run(x).cpu()
                seconds[each.name].append(time.perf_counter() - start)
    medians = {name: sorted(values)[RUNS // 2] for name, values in seconds.items()}
    best = min(found, key=lambda each: medians[each.name])
    times = (f"{each.name} {medians[each.name]:.3f} s" + (f" in {each.precision}" if each.precision else "") for each in found)
    say(f"backend auto: {', '.join(times)} for {SIZE[1]}x{SIZE[0]} pixels in {precision}; {best.name} is used{''.join(reasons)}")
    return best


def _checked(method: Method, name: str, precision: str, say: Callable[[str], None]) -> Backend:
    """Open a backend and compare it with PyTorch; raises Unfit. A stored export that cannot be used is made once more."""
    asked, precision = precision, _precision(method, name, precision)
    _check_support(name, precision)
    try:
        place = _place(method)
    except (OSError, RuntimeError) as error:              # RuntimeError: a user without a home folder
        raise Unfit(f"its cache cannot be written ({short(error, 200)}); UNWEATHER_CACHE names another folder") from error
    while True:
        start, stored = time.perf_counter(), engines.stored(place) is not None
        try:
            backend = Backend(name, *OPENERS[name](method, place, precision), "" if precision == asked else precision)
            difference = _difference(method, backend.run, precision)
        except Exception as error:        # the exporters and runtimes raise many types of exceptions
            if stored and name != "compile":
                place.unlink()
                continue
            raise error if isinstance(error, Unfit) else Unfit(f"it cannot compute this network: {short(error, 200)}") from error
        made = "compiled" if name == "compile" else f"{'opened' if stored else 'exported to'} {place}"
        why = "" if precision == asked else f" (not {asked}, in which its means over windows are not exact enough)"
        say(f"backend {name}, {precision}{why}: {made} in {time.perf_counter() - start:.1f} s, first calls included; {difference}")
        return backend


def _precision(method: Method, name: str, asked: str) -> str:
    """Return the precision in which a backend computes a network: OpenVINO 2026.4.1 adds up windows in bf16, 2.3 levels of 255 off."""
    return "single" if name == "openvino" and asked == "bf16" and method.windowed else asked


def _check_support(name: str, precision: str) -> None:
    """Raise Unfit if a backend is not installed or does not compute in a precision on this machine."""
    missing = [each for each in PACKAGES.get(name, ()) if not _is_installed(each)]
    if missing:
        raise Unfit(f"it needs the package{'s' * (len(missing) > 1)} {', '.join(missing)}: pip install {' '.join(missing)}")
    if name == "compile":
        if not any(map(shutil.which, filter(None, (os.environ.get("CXX"), *COMPILERS)))):
            raise Unfit("it needs a C++ compiler, and neither g++ nor clang++ is installed")
        return
    if process.device().type != "cpu":
        raise Unfit("it computes on the CPU only")
    if name == "openvino" and (limits := [each for each in LIMITS if os.environ.get(each)]):
        # its oneDNN obeys, its own kernels do not: bf16 under AVX2 ends with SIGSEGV (openvino 2026.4.1; openvino#36980, #38257)
        raise Unfit(f"it crashes where the variable {limits[0]} limits the instructions of the processor; unset this variable")
    if name == "openvino" and precision == "bf16" and "BF16" in engines.core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return
    if precision != "single":
        raise Unfit(f"it does not compute in {precision} on this processor")


def _version(package: str) -> str:
    """Return the version of a package, '' if it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return ""


def _is_installed(package: str) -> bool:
    return bool(_version(package))


def _difference(method: Method, run: Run, precision: str) -> str:
    """Return in words how a backend differs from PyTorch in single precision on a photo; raises Unfit if it is too much."""
    x = _picture().to(process.device())
    with torch.inference_mode(), process.exact_convolutions():
        expected = method.restore(x).float().cpu()
        with process.autocast(precision):
            found = [run(x).float().cpu() for _ in range(2)]          # the second call for a size may use another program
            own = method.restore(x).float().cpu()
    if found[0].shape != expected.shape:
        raise Unfit(f"its result has the shape {tuple(found[0].shape)} instead of {tuple(expected.shape)}")
    change = torch.stack([each - expected for each in found]).abs().amax(0)
    most, (levels, psnr), (own_levels, own_psnr) = change.max().item(), _measured(change), _measured(own - expected)
    if precision == "single":
        if not most <= EXACT:             # also true for NaN
            raise Unfit(f"its result differs from PyTorch's by {most:.2g}, more than {EXACT:g}")
        return f"its result differs from PyTorch's by at most {most:.1e}"
    most_levels, least_psnr = max(MEAN, WORSE * own_levels), min(PSNR, own_psnr - LESS)
    if not (levels <= most_levels and psnr >= least_psnr):
        raise Unfit(f"its result differs from PyTorch's in single precision by {levels:.2f} levels of 255 on average (limit "
                    f"{most_levels:.2f}), PSNR {psnr:.1f} dB (limit {least_psnr:.1f})")
    return f"its result differs from PyTorch's in single precision by {levels:.2f} levels of 255 on average, PSNR {psnr:.1f} dB"


def _measured(change: Tensor) -> tuple[float, float]:
    """Return the mean of the absolute values of a change in levels of 255, and the PSNR in dB."""
    return change.abs().mean().item() * 255, -10 * float(np.log10(max(change.square().mean().item(), 1e-20)))


def _picture() -> Tensor:
    """Return a photo with a little noise, (1, 3, *SIZE)."""
    photo = demo.photos("test")["cat"][20:20 + SIZE[0], 60:60 + SIZE[1]]
    x = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None] / 255
    return (x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def _digest(method: Method) -> str:
    """Return a hash of the network, its weights and the versions that compute it."""
    packages = [_version(each) for each in VERSIONS]
    digest = hashlib.sha256(repr((VERSION, EXPORT, torch.__version__, packages, method.built_from, str(method.network))).encode())
    for key, value in method.network.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _place(method: Method) -> Path:
    """Return the path of the exported network in the cache."""
    return files.make_folder(files.cache() / "backends") / f"{_digest(method)}.onnx"
