"""The build backend of pyproject.toml: setuptools for `pip install -e .`, one sentence for any other installation."""
from setuptools.build_meta import build_editable, get_requires_for_build_editable, prepare_metadata_for_build_editable

__all__ = ["build_editable", "build_sdist", "build_wheel", "get_requires_for_build_editable", "get_requires_for_build_sdist",
           "get_requires_for_build_wheel", "prepare_metadata_for_build_editable"]


def build_wheel(*_, **__):
    """Refuse: a wheel would hold unweather.py without the modules that it imports."""
    raise SystemExit("unweather runs from its repository and cannot be installed without it: use `pip install -e .` (with -e)")


build_sdist = get_requires_for_build_sdist = get_requires_for_build_wheel = build_wheel
