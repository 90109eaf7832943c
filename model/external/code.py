"""Runs a Python file that the user names, and returns a class from it."""
import contextlib
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from torch import nn

from runtime.errors import ENDING, UserError, about, short

ROOT = Path(__file__).resolve().parents[2]
OWN = {path.stem for path in (*ROOT.glob("*.py"), *(init.parent for init in ROOT.glob("*/__init__.py")))}     # modules of this program


def load(arch: str) -> Callable[..., nn.Module]:
    """Return the class or function that FILE.py:CLASS names; raises UserError with file and line if the file does not run."""
    file, mark, name = arch.rpartition(":")
    if not mark or not file.endswith(".py") or not name.isidentifier():
        raise UserError(f"--arch '{short(arch)}' is not FILE.py:CLASS, as in my_net.py:MyNet")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"--arch {arch}: the file {file} does not exist")
    try:
        module = _run(path.resolve())
    except ENDING:
        raise
    except BaseException as error:        # the file may do anything
        raise UserError(f"--arch {arch}: the file cannot be imported: {about(error, within(path), path)}") from error
    if not callable(getattr(module, name, None)):
        known = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, nn.Module)
                 and value.__module__ == module.__name__]
        raise UserError(f"--arch {arch}: {file} has no class {name}; its networks are {', '.join(known) or 'none'}")
    return getattr(module, name)


def within(path: Path) -> Callable[[Path], bool]:
    """Return a function that says whether a file is the user's: `path`, or one beside the outermost package to which `path` belongs."""
    path = path.resolve()
    top = [*_packages(path), path][0].parent
    foreign = {"site-packages", Path(__file__).parent.name}
    return lambda file: file.resolve() == path or (file.resolve().is_relative_to(top) and not foreign & set(file.parts))


@functools.cache
def _run(path: Path) -> ModuleType:
    """Run a file once and return it as a module.

    Imports find, before all else, what lies beside the file or, if it belongs to packages, beside the outermost one. The packages
    are empty: their `__init__.py` is not run, because it often imports a whole program for training.
    """
    packages = _packages(path)
    folders = packages or [path.parent]
    names = [folder.name for folder in packages] or [f"beside_{path.stem}"]
    with _first([path.parent, folders[0].parent] if packages else [path.parent], names[0]):
        for depth, folder in enumerate(folders, 1):
            spec = ModuleSpec(".".join(names[:depth]), None, is_package=True)
            spec.submodule_search_locations = [str(folder)]
            sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        found = importlib.util.spec_from_file_location(".".join([*names, path.stem]), path)
        assert found and found.loader
        module = importlib.util.module_from_spec(found)
        sys.modules[found.name] = module
        found.loader.exec_module(module)
    return module


def _packages(path: Path) -> list[Path]:
    """Return the folders of the packages to which a file belongs, outermost first."""
    found: list[Path] = []
    for folder in path.parents:
        if not (folder / "__init__.py").is_file():
            break
        found.insert(0, folder)
    return found


@contextlib.contextmanager
def _first(folders: list[Path], package: str) -> Iterator[None]:
    """Let imports in the block find the modules in some folders first, also those named as modules of this program.

    Afterwards sys.path is as before, and so is every name in sys.modules that had to make room.
    """
    names = {package} | {name for name in OWN for folder in folders if folder != ROOT and _holds(folder, name)}
    before, paths = _taken(names), list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders]
    try:
        yield
    finally:
        sys.path[:] = paths
        for name in {key.partition(".")[0] for key in before}:
            _taken({name})
        sys.modules.update(before)


def _holds(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or (folder / name).is_dir()


def _taken(names: set[str]) -> dict[str, ModuleType]:
    """Remove modules and all below them from sys.modules and return them."""
    return {key: sys.modules.pop(key) for key in list(sys.modules) if key.partition(".")[0] in names}
