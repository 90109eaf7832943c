"""The build backend of pyproject.toml: setuptools for `pip install -e .`; any other installation ends with one error message."""
from setuptools.build_meta import build_editable, get_requires_for_build_editable, prepare_metadata_for_build_editable

__all__ = ["build_editable", "build_sdist", "build_wheel", "get_requires_for_build_editable", "get_requires_for_build_sdist",
           "get_requires_for_build_wheel", "prepare_metadata_for_build_editable"]


def build_wheel(*_, **__):
    """Raise SystemExit, because a wheel would contain unweather.py without the modules that it imports."""
    raise SystemExit("unweather runs from its repository and cannot be installed as a wheel: use `pip install -e .` (with -e)")


build_sdist = get_requires_for_build_sdist = get_requires_for_build_wheel = build_wheel
