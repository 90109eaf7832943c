"""Restore images from Python, in any folder, after `pip install -e .` in this repository.

    import unweather
    method = unweather.load("experiment/mine/model/model_best.pt")
    unweather.write("restored.png", unweather.restore(method, unweather.read("snowy.jpg")))

Images are (H, W, 3) uint8 arrays; paths are strings or Paths. Bad input raises `UserError` with one sentence; a failed read or
write raises OSError.

The repository's modules have common names (data, model, utility). They are imported with the repository first on sys.path and
are then removed from sys.modules, so that `import data` in the caller's code still finds the caller's own module. Therefore
pickle, which finds classes by module name, cannot store a method; store its state_dict or the model file instead.
"""
import contextlib
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

__all__ = ["UserError", "load", "measure", "read", "restore", "write"]

ROOT = Path(__file__).resolve().parent
NAMES = {path.stem for path in (*ROOT.glob("*.py"), *(init.parent for init in ROOT.glob("*/__init__.py")))} - {Path(__file__).stem}
_lock = threading.RLock()
_modules: dict[str, ModuleType] = {}      # this repository's modules while they are not in sys.modules


def _ours(file: str | None) -> bool:
    return bool(file) and Path(file).resolve().is_relative_to(ROOT)


def _visible(name: str) -> bool:
    """Return whether `import name` finds this repository's module without changes to sys.path or sys.modules."""
    found = sys.modules[name] if name in sys.modules else PathFinder.find_spec(name)
    return _ours(getattr(found, "__file__", None) or getattr(found, "origin", None))


def _take() -> dict[str, ModuleType]:
    """Remove the modules with names of this repository from sys.modules and return them."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in NAMES}


@contextlib.contextmanager
def _own_modules() -> Iterator[None]:
    """Let imports in the block find this repository's modules; restore sys.path and sys.modules afterwards."""
    with _lock:
        callers = _take()
        sys.modules.update(_modules)
        sys.path.insert(0, str(ROOT))
        try:
            yield
        finally:
            sys.path.remove(str(ROOT))
            _modules.update(_take())
            sys.modules.update(callers)


_importing = contextlib.nullcontext if all(map(_visible, sorted(NAMES))) else _own_modules
with _importing():
    import metric
    from data import image as files
    from data.image import read
    from model import weights
    from model.method import Method
    from restore.restorer import Restorer
    from runtime.errors import UserError

if not _ours(metric.__file__):
    raise ImportError(f"unweather cannot import its own modules: '{metric.__file__}' was imported instead of {ROOT / 'metric'}")


def load(path: str | Path, arch: str = "", model: str = "", **flags: object) -> Method:
    """Return the method stored in a file of weights (.pt, .pth, .safetensors), in evaluation mode on the CPU; UserError for other files.

    A file of this program states its model. model: that of a file that does not, such as a released one; flags: those of its network, as
    channels=32 for --channels 32. arch: FILE.py:CLASS, the code of the network if its model needs that (docs/systems/external.md); the
    file is run.
    """
    named = {key: value for key, value in (("model", model.lower()), ("arch", arch)) if value}
    with _importing():                    # this imports the model's package
        return weights.load(path, {**named, **flags})


def restore(method: Method, image: np.ndarray) -> np.ndarray:
    """Return the restored image, (H, W, 3) uint8 like the input, computed on the device of the method's weights."""
    x = _tensor(image, "the image")
    return files.to_array(Restorer(method)(x)[0])


def write(path: str | Path, image: np.ndarray) -> None:
    """Write an (H, W, 3) uint8 array atomically, in the format of the path's suffix: .png, .jpg or .webp (quality 95)."""
    files.write(path, _checked(image, "the image"))


def measure(restored: np.ndarray, target: np.ndarray, protocol: str = "default", task: str = "") -> dict[str, float]:
    """Return the numbers of one image by one protocol, such as `psnr` and `ssim` (see `python main.py --list`).

    task: what was removed (rain, snow, haze, noise, drops); some protocols measure rain on Y and all other tasks on RGB.
    """
    pair = _tensor(restored, "the restored image"), _tensor(target, "the target")
    if restored.shape != target.shape:
        raise UserError(f"the restored image and its target differ in shape: {restored.shape} and {target.shape}")
    chosen, *others = metric.protocols(protocol)
    if others:
        raise UserError(f"measure takes one protocol at a time, not '{protocol}'")
    with torch.inference_mode():
        return metric.compare(*map(chosen.fit, pair), chosen, task)


def _tensor(image: np.ndarray, what: str) -> torch.Tensor:
    """Return the image as (1, 3, H, W) in [0, 1]; raises UserError for an invalid image."""
    return files.to_tensor(_checked(image, what))[None]


def _checked(image: np.ndarray, what: str) -> np.ndarray:
    """Return the image; raises UserError unless it is a non-empty (H, W, 3) uint8 array."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        found = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"{what} must be a NumPy array of type uint8 and shape (height, width, 3), not {found}")
    return image
