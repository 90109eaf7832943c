"""`import unweather` works in any folder, also beside modules of the same names as ours, and leaves those alone."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import metric
import unweather
from data import image
from model import weights
from runtime.errors import UserError
from tests.conftest import REPO, photo, python, save, veiled
from tests.test_export import make

SCRIPT = """
import json, sys
early = sys.argv[1:] == ["early"]
if early:
    import data.image, utility
before = list(sys.path)
import unweather
assert sys.path == before
import data.image, utility
whose = [data.WHOSE, data.image.WHOSE, utility.WHOSE]
method = unweather.load("x.pt")
restored = unweather.restore(method, unweather.read("in.png"))
unweather.write("out.png", restored)
numbers = unweather.measure(restored, unweather.read("clean.png"))
import metric
whose += [sys.modules["data"].WHOSE, sys.modules["utility"].WHOSE, metric.WHOSE]
try:
    import loss
except ModuleNotFoundError:
    whose.append("none")
assert sys.path == before
print(json.dumps([whose, numbers]))
"""


@pytest.mark.parametrize("when", ["early", "late"])
def test_beside_modules_of_the_same_names(place, when):
    """The caller has data/, utility.py and metric.py; unweather restores as the model does, and the caller's names stay theirs."""
    method = make("dncnn")
    clean, home, site = photo(24, 32, 0), place / "home", place / "site"
    for name in ("data/__init__.py", "data/image.py", "utility.py", "metric.py"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("WHOSE = 'mine'\n")
    (home / "script.py").write_text(SCRIPT)
    os.replace("x.pt", home / "x.pt")
    save(home / "clean.png", clean)
    save(home / "in.png", veiled(clean))
    site.mkdir()
    (site / "unweather.py").symlink_to(REPO / "unweather.py")             # all that `pip install -e .` makes visible
    result = subprocess.run(python("script.py", when), capture_output=True, text=True, cwd=home,
                            env={**os.environ, "PYTHONPATH": str(site)})
    assert result.returncode == 0, result.stderr
    whose, numbers = json.loads(result.stdout)
    assert whose == ["mine"] * 6 + ["none"]
    with torch.inference_mode():
        expected = image.to_array(method.restore(image.to_tensor(veiled(clean))[None])[0])
    assert np.array_equal(image.read(home / "out.png"), expected)
    expected, clean = (image.to_tensor(each)[None] for each in (expected, clean))
    assert numbers == pytest.approx(metric.compare(expected, clean, metric.PROTOCOLS["default"]))


def test_in_the_repository_the_modules_are_shared(place):
    """Beside our own modules there is one copy of each: errors can be caught and a loaded method is a Method."""
    make("dncnn")
    method = unweather.load(Path("x.pt"))
    assert unweather.UserError is UserError and sys.modules["data"].__file__ == str(REPO / "data/__init__.py")
    assert type(method) is type(weights.load("x.pt")) and not method.training


def test_numbers_are_those_of_the_protocol():
    one, other = photo(40, 44, 0), photo(40, 44, 1)
    pair = [image.to_tensor(each)[None] for each in (one, other)]
    for name, task in (("default", ""), ("two_stage_kd", "rain"), ("two_stage_kd", "snow")):
        protocol = metric.PROTOCOLS[name]
        assert unweather.measure(one, other, name, task) == metric.compare(*map(protocol.fit, pair), protocol, task)


@pytest.mark.parametrize("call, words", [
    (lambda x: unweather.write("x.bmp", x), "x.bmp cannot be written: its name must end in .png, .jpg, .webp"),
    (lambda x: unweather.write("x.png", x / 255), "uint8 and shape (height, width, 3), not float64 of shape (8, 9, 3)"),
    (lambda x: unweather.restore(None, x[..., 0]), "not uint8 of shape (8, 9)"),
    (lambda x: unweather.restore(None, "x.png"), "not str"),
    (lambda x: unweather.read("none.png"), "cannot read the image none.png"),
    (lambda x: unweather.load("none.pt"), "the file none.pt does not exist"),
    (lambda x: unweather.measure(x, x[1:]), "differ in shape: (8, 9, 3) and (7, 9, 3)"),
    (lambda x: unweather.measure(x, x, "nonsense"), "unknown protocol 'nonsense'"),
    (lambda x: unweather.measure(x, x, "default+smgarn"), "one protocol at a time"),
])
def test_bad_input_is_a_sentence(place, call, words):
    with pytest.raises(UserError) as caught:
        call(photo(8, 9, 0))
    assert words in str(caught.value) and list(place.iterdir()) == []


@pytest.mark.parametrize("name", ["x.png", "x.PNG", "x.jpg", "x.JPEG", "x.webp"])
def test_paths_are_strings(place, name):
    unweather.write(name, photo(8, 9, 0))
    assert unweather.read(name).shape == (8, 9, 3) and image.size(name) == (8, 9)


def test_only_an_editable_installation_is_built():
    pytest.importorskip("setuptools")
    from tool import editable
    assert 'build-backend = "editable"' in (REPO / "pyproject.toml").read_text()
    for hook in ("get_requires_for_build_wheel", "build_wheel", "get_requires_for_build_sdist", "build_sdist"):
        with pytest.raises(SystemExit, match=r"use `pip install -e \.`"):
            getattr(editable, hook)("folder")
    assert editable.build_editable.__module__ == "setuptools.build_meta"


def test_a_released_file(place):
    """It does not state its model: the caller names it, and flags of its network, like the commands do."""
    method = make("dncnn")
    torch.save(method.network.state_dict(), "released.pth")
    again = unweather.load("released.pth", model="dncnn", channels=weights.describe("x.pt")["channels"])
    picture = photo(20, 24, 1)
    assert np.array_equal(unweather.restore(again, picture), unweather.restore(unweather.load("x.pt"), picture))
    assert np.array_equal(unweather.restore(unweather.load("x.pt", model="DnCNN"), picture), unweather.restore(again, picture))
    for named, words in (({}, r'from Python: model="NAME"'), ({"model": "none"}, "none"),
                         ({"model": "dncnn", "chanels": 4}, "no flag --chanels"),
                         ({"model": "dncnn", "channels": "wide"}, "the flag --channels of dncnn cannot be 'wide'"),
                         ({"model": "dncnn"}, "does not fit the model dncnn")):
        with pytest.raises(UserError, match=words):
            unweather.load("released.pth", **named)
    with pytest.raises(UserError, match="is a checkpoint of the model dncnn, not of sapnet"):
        unweather.load("x.pt", model="sapnet")
