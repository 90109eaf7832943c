"""Tests of tool.export: a file computes what the model computes, at any size, or it is not written."""
import argparse
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import model
from model import weights
from runtime import files
from tests.test_systems import PLAIN
from tool import export, guarded

QUICK = ("unet",)                         # UNWEATHER_EXPORT=all tests every model, which takes minutes


def make(name: str, path: str = "x.pt", flags: list[str] | None = None):
    """Write a model file with random weights and return its method."""
    parser = argparse.ArgumentParser()
    model.package(name).add_arguments(parser)
    args = parser.parse_known_args(PLAIN.get(name, ["--channels", "4"]) if flags is None else flags)[0]
    args.model, args.rgb_range, args.n_colors = name, 255.0, 3
    torch.manual_seed(0)
    method = model.build(args)
    with torch.no_grad():                 # with its initial values a missing normalisation would not be noticed
        for part in method.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-0.1, 0.1)
                part.running_var.uniform_(0.05, 0.2)
    files.write_tensors(Path(path), weights.model_content(method, args, {}))
    return method.eval()


@pytest.fixture
def tool(place, capsys):
    """Run the tool: tool('--flag', …) -> (status, what it printed)."""
    def call(*flags: str) -> tuple[int, str]:
        status = guarded("tool.export", lambda: export.run(list(flags)))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out + err
    return call


@pytest.fixture
def onnxruntime():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"the extra 'export' is not installed: no {name}")
    return pytest.importorskip("onnxruntime")


@torch.inference_mode()
@pytest.mark.parametrize("name", model.MODELS if os.environ.get("UNWEATHER_EXPORT") == "all" else QUICK)
def test_onnx_equals_the_model(tool, onnxruntime, name):
    method = make(name)
    status, text = tool("x.pt", "--onnx", "--output", "y.onnx")
    assert status == 0 and "greatest difference from the original" in text, text
    session = onnxruntime.InferenceSession("y.onnx", providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["input"] and [each.name for each in session.get_outputs()] == ["image"]
    stated = session.get_modelmeta().custom_metadata_map
    assert stated["unweather.model"] == name and stated["unweather.range"].startswith("[0, 1]")
    assert stated["unweather.multiple"].startswith(f"{method.multiple_of},")
    assert json.loads(stated["unweather.arguments"])["rgb_range"] == 255
    least = int(stated["unweather.smallest_side"])
    for size in ((1, 3, least, least), (3, 3, 71, least + 1)):
        x = torch.rand(size)
        found = torch.from_numpy(session.run(None, {"input": x.numpy()})[0])
        assert found.shape == x.shape and (found - method.restore(x)).abs().max() < 1e-4
    assert sorted(path.name for path in Path().iterdir()) == ["x.pt", "y.onnx"]


@torch.inference_mode()
def test_torch_file_equals_the_model(tool):
    method = make("smgarn")
    status, text = tool("x.pt", "--torch")
    assert status == 0, text
    facts = {"unweather.json": ""}
    program = torch.export.load("x.pt2", extra_files=facts).module()
    assert json.loads(facts["unweather.json"])["model"] == "smgarn"
    x = torch.rand(3, 3, 50, 17)
    assert (program(x) - method.restore(x)).abs().max() < 1e-5


@torch.inference_mode()
@pytest.mark.parametrize("name", model.MODELS)
def test_padding_inside_is_that_outside(place, name):
    """The traced module equals the method's restore, down to the smallest size."""
    method = make(name)
    least = export.smallest(method)
    for height, width in ((least, least), (least + 1, 2 * least + 9)):
        x = torch.rand(1, 3, height, width)
        assert torch.equal(export.Restored(method)(x), method.restore(x))


@pytest.mark.parametrize("flags, words", [
    (("x.pt",), "one of the arguments --onnx --torch is required"),
    (("x.pt", "--torch", "--onnx"), "not allowed with argument"),
    (("x.pt", "--torch", "--output", "x.pt"), "--output x.pt: the name must end in .pt2"),
    (("x.pt", "--torch", "--output", "no/x.pt2"), "there is no folder no"),
    (("none.pt", "--torch"), "the file none.pt does not exist"),
    (("bad.pt", "--torch"), "bad.pt is damaged or is not a file of weights"),
    (("other.pt", "--torch"), "does not state its model"),
])
def test_errors_that_the_user_can_correct(tool, flags, words):
    make("smgarn")
    Path("bad.pt").write_bytes(b"nonsense")
    torch.save({"state_dict": {}}, "other.pt")
    status, text = tool(*flags)
    assert status == 2 and words in text and text.count("\n") == 1
    assert not list(Path().glob("*.pt2"))


def test_a_file_that_computes_something_else_is_not_kept(tool, monkeypatch):
    method = make("smgarn")
    monkeypatch.setattr(export, "traced", lambda *_: None)
    for change, words in ((lambda x: x + 2e-4, "differs from the original by 0.0002"), (lambda x: x * torch.nan, "differs"),
                           (lambda x: x[..., 1:], "the exported file returns 1x3x32x39 for an input of 1x3x32x40")):
        monkeypatch.setattr(export, "as_torch", lambda *_, change=change: (b"x", lambda path: lambda x: change(method.restore(x))))
        status, text = tool("x.pt", "--torch")
        assert status == 1 and words in text
        assert [path.name for path in Path().iterdir()] == ["x.pt"]


def test_a_model_that_cannot_be_exported_says_why(tool, monkeypatch):
    make("smgarn")

    def looks(self, image):
        return image if image.sum() > 0 else -image
    monkeypatch.setattr(export.Restored, "forward", looks)
    status, text = tool("x.pt", "--torch")
    assert status == 1 and "the model smgarn cannot be exported: " in text and text.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["x.pt"]


def test_missing_packages_are_named(tool, monkeypatch):
    make("smgarn")
    monkeypatch.setitem(sys.modules, "onnx", None)
    status, text = tool("x.pt", "--onnx")
    assert (status, text) == (2, "tool.export: error: --onnx needs the package onnx: pip install onnx onnxscript onnxruntime\n")
