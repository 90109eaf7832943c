"""Backends: each agrees with PyTorch before it is used, and PyTorch computes where one cannot be used."""
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import tester
from restore import backend
from restore.restorer import Restorer, Settings
from runtime import memory
from runtime.errors import UserError
from tests.conftest import TINY
from tests.test_export import make


@pytest.fixture
def said():
    return []


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """An empty cache, and no backend from another test."""
    monkeypatch.setenv("UNWEATHER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(backend, "_open", {})


@pytest.fixture
def method(place):
    return make("unet", flags=["--channels", "4"])


def fake(monkeypatch, method, change=0.0, name="openvino"):
    """Replace a backend by PyTorch plus a constant, as if its packages were installed; return the list of its precisions when opened."""
    opened = []

    def opener(method, place, precision):
        opened.append(precision)
        return lambda x: method.restore(x) + change, lambda: None
    monkeypatch.setitem(backend.OPENERS, name, opener)
    monkeypatch.setattr(backend, "_check_support", lambda *_: None)
    return opened


class Keeping:
    """A backend that keeps the memory of its largest run, as the arenas of onnxruntime and OpenVINO do."""

    def __init__(self, method):
        self.method, self.kept = method, np.ones(0)

    def run(self, x):
        needed = 50 * x.shape[-2] * x.shape[-1]           # 400 bytes per pixel
        self.kept = np.ones(needed) if len(self.kept) < needed else self.kept
        return self.method.restore(x)

    def release(self):
        self.kept = np.ones(0)


def test_kept_memory_is_seen_and_a_limit_leads_to_tiles(method, monkeypatch):
    """Memory that a backend keeps from earlier images neither hides what the next one needs nor counts as used."""
    keeping = Keeping(method)
    monkeypatch.setattr(backend, "_check_support", lambda *_: None)
    monkeypatch.setitem(backend.OPENERS, "openvino", lambda *_: (keeping.run, keeping.release))
    check_limit(Restorer(method, Settings(backend="openvino")), least=400, enough=1.5)


def check_limit(restorer, least, enough):
    """Restore a large image twice; then at least `least` bytes per pixel are measured; half of the memory needed leads to tiles."""
    for _ in range(2):
        restorer(torch.rand(1, 3, 512, 512))
    restorer._measure()
    if restorer.per_pixel is None:
        pytest.skip("memory cannot be measured on this system")
    assert restorer.per_pixel >= least
    x = torch.rand(1, 3, 1100, 1400)
    needed, pixels = restorer.per_pixel * 1100 * 1400, 1100 * 1400
    restorer.backend.release()
    now = memory._status("VmRSS")
    restorer.settings = restorer.settings._replace(memory=(now + enough * needed + 25 * pixels) / 2**30)     # 25: see RESULT_BYTES
    for _ in range(2):
        restorer(x)
    assert not restorer.tiled
    restorer.settings = restorer.settings._replace(memory=(now + 0.5 * needed) / 2**30)
    assert restorer(x).shape == x.shape and restorer.tiled


def test_a_missing_package_is_named_and_torch_computes(method, said, monkeypatch):
    monkeypatch.setattr(backend, "_is_installed", lambda package: package != "openvino")
    assert backend.choose(method, "openvino", "single", said.append).name == "torch"
    assert said == ["the backend openvino is not used, because it needs the package openvino: pip install openvino; torch computes instead"]


def test_a_cache_that_cannot_be_written(method, said, monkeypatch):
    Path("file").touch()
    monkeypatch.setenv("UNWEATHER_CACHE", "file/cache")
    fake(monkeypatch, method)
    assert backend.choose(method, "openvino", "single", said.append).name == "torch"
    assert "its cache cannot be written" in said[0] and "UNWEATHER_CACHE names another folder" in said[0]


def test_a_precision_that_a_backend_lacks(method, said, monkeypatch):
    monkeypatch.setattr(backend, "_is_installed", lambda package: True)
    assert backend.choose(method, "onnxruntime", "bf16", said.append).name == "torch"
    assert "does not compute in bf16 on this processor" in said[0]


def test_compile_needs_a_compiler(method, said, monkeypatch):
    monkeypatch.setattr(backend.shutil, "which", lambda name: None)
    assert backend.choose(method, "compile", "single", said.append).name == "torch"
    assert "because it needs a C++ compiler, and neither g++ nor clang++ is installed" in said[0]


def test_the_time_of_the_first_calls_is_stated(method, said, monkeypatch):
    """torch.compile compiles in the first call; the clock stands still except in this call."""
    clock = [0.0]

    def run(x):
        clock[0] += 35.0 if not clock[0] else 0.0
        return method.restore(x)
    monkeypatch.setattr(backend.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(backend, "_check_support", lambda *_: None)
    monkeypatch.setitem(backend.OPENERS, "compile", lambda *_: (run, lambda: None))
    assert backend.choose(method, "compile", "single", said.append).name == "compile"
    assert said[0].startswith("backend compile, single: compiled in 35.0 s, first calls included; ")


def test_an_unknown_backend(method, said):
    with pytest.raises(UserError, match="there is no backend 'fast'; there are torch, compile, onnxruntime, openvino, auto"):
        backend.choose(method, "fast", "single", said.append)


@pytest.mark.parametrize("variable", backend.LIMITS)
def test_openvino_does_not_run_under_a_limit_of_the_processor(method, said, monkeypatch, variable):
    """OpenVINO 2026.4.1 ends the process by a segmentation fault under these variables, in bf16."""
    monkeypatch.setattr(backend, "_is_installed", lambda package: True)
    monkeypatch.setitem(backend.OPENERS, "openvino", None)
    for each in backend.LIMITS:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(variable, "AVX2")
    for precision in ("single", "bf16"):
        assert backend.choose(method, "openvino", precision, said.append).name == "torch"
        assert f"because it crashes where the variable {variable} limits the instructions" in said[-1]


@pytest.mark.parametrize("precision, change, used", [("single", 5e-5, True), ("single", 2e-4, False), ("single", float("nan"), False),
                                                      ("bf16", 1e-3, True), ("bf16", 0.01, False), ("bf16", float("nan"), False)])
def test_a_backend_that_differs_is_not_used(method, said, monkeypatch, precision, change, used):
    fake(monkeypatch, method, change)
    assert backend.choose(method, "openvino", precision, said.append).name == ("openvino" if used else "torch")
    assert ("not used" in said[-1]) != used


@pytest.mark.parametrize("change, used", [(0.001, True), (0.005, False)])
def test_a_backend_may_differ_in_bf16_as_pytorch_does(method, said, monkeypatch, change, used):
    """PyTorch's own bf16 differs by 0.01 more here, so that a backend that differs by another `change` may be used up to a limit."""
    fake(monkeypatch, method, change)
    real = method.restore
    monkeypatch.setattr(method, "restore", lambda x: real(x) + (0.01 if torch.is_autocast_enabled("cpu") else 0))
    assert backend.choose(method, "openvino", "bf16", said.append).name == ("openvino" if used else "torch")
    assert used or "levels of 255 on average (limit 3.2" in said[-1]


def test_a_backend_that_fails_is_not_used(method, said, monkeypatch):
    fake(monkeypatch, method)

    def opener(*_):
        raise RuntimeError("this operator is not known\nsecond line")
    monkeypatch.setitem(backend.OPENERS, "openvino", opener)
    assert backend.choose(method, "openvino", "single", said.append).name == "torch"
    assert "it cannot compute this network: this operator is not known" in said[0]


def test_auto_takes_the_fastest(method, said, monkeypatch):
    fake(monkeypatch, method)
    fake(monkeypatch, method, name="onnxruntime")
    slow = {"torch": 3.0, "onnxruntime": 2.0, "openvino": 1.0}
    clock = iter(time for _ in range(100) for name in ("torch", "onnxruntime", "openvino") for time in (0.0, slow[name]))
    monkeypatch.setattr(backend, "_checked", lambda method, name, *_: backend.Backend(name, method.restore))
    monkeypatch.setattr(backend.time, "perf_counter", lambda: next(clock))
    assert backend.choose(method, "auto", "single", said.append).name == "openvino"
    assert "torch 3.000 s, onnxruntime 2.000 s, openvino 1.000 s" in said[-1]


def test_a_backend_stays_open_until_the_weights_change(method, said, monkeypatch):
    opened = fake(monkeypatch, method)
    for _ in range(2):
        backend.choose(method, "openvino", "single", said.append)
    assert len(opened) == 1
    with torch.no_grad():
        next(method.network.parameters()).add_(0.1)
    backend.choose(method, "openvino", "single", said.append)
    assert len(opened) == 2
    for number in range(backend.KEPT + 1):
        backend.choose(method, "openvino", ("single", "bf16")[number % 2], said.append)
    assert len(backend._open) <= backend.KEPT


def test_results_name_the_backend_and_a_training_tests_with_torch(run, pairs, monkeypatch):
    seen = []
    real = tester.Restorer

    class Spy(real):
        def __init__(self, method, settings, *args):
            seen.append(settings.backend)
            super().__init__(method, settings, *args)
    monkeypatch.setattr(tester, "Restorer", Spy)
    monkeypatch.setattr(backend, "_check_support", lambda *_: None)
    monkeypatch.setitem(backend.OPENERS, "openvino", lambda method, place, precision: (method.restore, lambda: None))
    status, text = run("--data_train", "set", "--save", "x", *TINY, "--loss", "1*L1", "--backend", "openvino")
    assert status == 0, text
    assert seen == ["torch", "openvino"]
    assert json.loads(Path("experiment/x/metrics.json").read_text())["set"]["backend"] == "openvino"
    assert "single, openvino, whole images" in text
    assert "fp32, openvino, whole images" in Path("experiment/x/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("precision, windowed, computed", [("single", 0, ""), ("bf16", 0, ""), ("bf16", 96, "single")])
def test_openvino_adds_up_windows_in_single(method, said, monkeypatch, precision, windowed, computed):
    """Its sums in bf16 are not exact enough; what it says, and the numbers of a test, state the precision in which it computes."""
    opened = fake(monkeypatch, method)
    method.windowed = windowed
    chosen = backend.choose(method, "openvino", precision, said.append)
    assert chosen.precision == computed and opened == [computed or precision]
    assert f"backend openvino, {opened[0]}" in said[0] and ("not bf16" in said[0]) == bool(computed)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_real_backend(method, said, name):
    """It equals PyTorch for any size, is exported once, and made anew when the stored file is damaged."""
    for package in backend.PACKAGES[name]:
        pytest.importorskip(package, reason=f"the extra 'fast' is not installed: no {package}")
    if name == "openvino" and any(map(os.environ.get, backend.LIMITS)):
        pytest.skip("OpenVINO is not used where the instructions of the processor are limited")
    restorer = Restorer(method, Settings(backend=name))
    assert restorer.backend.name == name
    results = []
    for size in ((64, 64), (53, 71), (5, 200), (53, 71), (64, 64), (53, 71)) * 2:         # shapes that come twice have their own program
        x = torch.rand(1, 3, *size)
        with torch.inference_mode():
            results.append((restorer(x), method.restore(x)))
    for found, expected in results:       # none is overwritten by a later run
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    check_limit(restorer, least=50, enough=3)
    stored, = (backend.files.cache() / "backends").glob("*.onnx")
    before = stored.read_bytes()
    for content, word in ((before, "opened"), (before[:500], "exported")):
        stored.write_bytes(content)
        backend._open.clear()
        assert backend.choose(method, name, "single", said.append).name == name
        assert word in said[-1]
