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
from model import names, weights
from restore import programs, worker
from runtime import files
from runtime.errors import UserError
from tests import small
from tool import export, guarded, serve

QUICK = ("unet",)                         # UNWEATHER_EXPORT=all tests every model, which takes minutes
HALF = ("dncnn", "nafnet", pytest.param("restormer", marks=pytest.mark.slow))


def make(name: str, path: str = "x.pt", flags: list[str] | None = None):
    """Write a model file with random weights and return its method."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pre_train", default="")
    model.package(name).add_arguments(parser)
    args = parser.parse_args(small.flags(name) if flags is None else flags)
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
    assert axes("y.onnx") == {"input": ["batch", 3, "height", "width"], "image": ["batch", 3, "height", "width"]}
    assert stated["unweather.model"] == name and stated["unweather.range"].startswith("[0, 1]")
    assert stated["unweather.multiple"].startswith(f"{method.multiple_of},")
    assert json.loads(stated["unweather.arguments"])["rgb_range"] == 255
    least = int(stated["unweather.smallest_side"])
    for size in ((1, 3, least, least), (3, 3, 71, least + 1)):
        x = torch.rand(size)
        found = torch.from_numpy(session.run(None, {"input": x.numpy()})[0])
        assert found.shape == x.shape and (found - method.restore(x)).abs().max() < 1e-4
    assert sorted(path.name for path in Path().iterdir()) == ["x.pt", "y.onnx"]


def axes(path: str) -> dict[str, list]:
    """Return the sizes that an ONNX file states for its input and output, by name; both are float32."""
    import onnx
    graph = onnx.load(path).graph
    stated = {each.name: each.type.tensor_type for each in (*graph.input, *graph.output)}
    assert [each.elem_type for each in stated.values()] == [onnx.TensorProto.FLOAT] * 2
    return {name: [size.dim_param or size.dim_value for size in each.shape.dim] for name, each in stated.items()}


@torch.inference_mode()
@pytest.mark.parametrize("name", HALF)
def test_onnx_in_float16(tool, onnxruntime, name):
    """Convolutions compute in float16; norms, means and softmax in float32, without a float16 number between two of them."""
    import onnx
    method = make(name)
    status, text = tool("x.pt", "--onnx", "--half", "--output", "y.onnx")
    assert status == 0 and "PSNR at least " in text, text
    assert set(axes("y.onnx")) == {"input", "image"}
    graph = onnx.shape_inference.infer_shapes(onnx.load("y.onnx"), strict_mode=True).graph
    types = {each.name: each.type.tensor_type.elem_type for each in (*graph.value_info, *graph.input, *graph.output)}
    types |= {each.name: each.data_type for each in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    assert {types[node.input[1]] for node in graph.node if node.op_type == "Conv"} == {onnx.TensorProto.FLOAT16}
    exact = [node for node in graph.node if node.op_type in programs.EXACT]
    assert exact or name == "dncnn"       # whose norms are part of its convolutions
    for node in exact:
        assert types[node.output[0]] in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64), node.name
        before = [node]
        while (cast := makers.get(before[-1].input[0])) and cast.op_type == "Cast":
            before.append(cast)
        rounded = onnx.TensorProto.FLOAT16 in [types[each.input[0]] for each in before]
        assert not (rounded and cast and cast.op_type in programs.EXACT), node.name
    session = onnxruntime.InferenceSession("y.onnx", providers=["CPUExecutionProvider"])
    x = torch.rand(2, 3, 37, 51)
    difference = torch.from_numpy(session.run(None, {"input": x.numpy()})[0]) - method.restore(x)
    assert -10 * difference.square().mean().log10() > 60


def test_a_file_in_float16_that_is_too_inexact_is_not_kept(tool, monkeypatch):
    """An error of 0.002 is refused: its PSNR is 54 dB, where 60 are required; without --half the limit is another one."""
    method = make("smgarn")
    monkeypatch.setattr(programs, "traced", lambda *_: None)
    monkeypatch.setattr(programs, "need", lambda *_: None)
    for change, words in ((5e-4, "PSNR at least 66.0 dB"), (2e-3, "PSNR 54.0 dB, on 1x3x32x40, where at least 60 dB are required")):
        monkeypatch.setattr(programs, "as_onnx", lambda *_, change=change: (b"x", lambda path: lambda x: method.restore(x) + change))
        with torch.inference_mode():
            status, text = tool("x.pt", "--onnx", "--half")
        assert status == (change == 2e-3) and words in text
        assert Path("x.onnx").exists() == (not status)
        Path("x.onnx").unlink(missing_ok=True)


@torch.inference_mode()
def test_a_released_file_needs_its_model(tool):
    """--model names the model of a file that does not state it; the flags of its network follow; the same in the page and in Python."""
    method = make("sapnet", flags=["--channels", "16", "--recurrent_iter", "3"])
    torch.save({"module." + key: value for key, value in names.released(method).items()}, "official.pth")
    typed = ["--model", "SAPNet", "--channels", "16", "--recurrent_iter", "3"]
    status, text = tool("official.pth", "--safetensors", *typed)
    assert status == 0 and "names of the released files" in text, text
    x = torch.rand(1, 3, 33, 40)
    assert torch.equal(weights.load("official.safetensors").restore(x), method.restore(x))
    assert weights.read("official.safetensors").arguments["recurrent_iter"] == 3
    args = serve.arguments(["--weights", "official.pth", *typed])
    found = serve.find(args.weights, args.network)
    assert found == {"official (sapnet)": Path("official.pth")}
    service = worker.Service(found, 10**6, args.network)
    assert torch.equal(service._method("official (sapnet)").restore(x), method.restore(x))
    with pytest.raises(UserError, match=r"official\.pth does not state its model; name it with --model NAME"):
        serve.find(["official.pth"])
    with pytest.raises(UserError, match="does not fit the model sapnet"):
        serve.find(["official.pth"], {"model": "sapnet"})


def test_files_of_several_models_beside_a_released_one(place):
    """--model applies to the files that do not state their model; if there are none, it is refused."""
    make("unet", "unet.pt")
    torch.save(names.released(make("smgarn")), "official.pth")
    typed = {"model": "smgarn", "channels": 4}
    found = serve.find(["unet.pt", "official.pth"], typed)
    assert list(found) == ["unet (unet)", "official (smgarn)"]
    service = worker.Service(found, 10**6, typed)
    assert [type(service._method(name)).__module__ for name in found] == ["model.unet", "model.smgarn"]
    with pytest.raises(UserError, match=r"none of the files is of the model smgarn: unet \(unet\); leave out --model"):
        serve.find(["unet.pt"], typed)


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
    least = programs.smallest(method)
    for height, width in ((least, least), (least + 1, 2 * least + 9)):
        x = torch.rand(1, 3, height, width)
        assert torch.equal(programs.Restored(method)(x), method.restore(x))


@pytest.mark.parametrize("flags, words", [
    (("x.pt",), "one of the arguments --onnx --torch --safetensors is required"),
    (("x.pt", "--torch", "--onnx"), "not allowed with argument"),
    (("x.pt", "--torch", "--output", "x.pt"), "--output x.pt: the name must end in .pt2"),
    (("x.pt", "--torch", "--output", "no/x.pt2"), "there is no folder no"),
    (("none.pt", "--torch"), "the file none.pt does not exist"),
    (("", "--torch"), "FILE '' is not the name of a model file"),
    ((".", "--safetensors", "--card"), "FILE '.' is not the name of a model file"),
    (("bad.pt", "--torch"), "bad.pt is damaged or is not a file of weights"),
    (("other.pt", "--torch"), "does not state its model; name it with --model NAME"),
    (("other.pt", "--torch", "--model", "x"), "unknown model 'x' in --model"),
    (("other.pt", "--torch", "--model", "smgarn"), "does not fit the model smgarn: 0 of its 130 tensors match"),
    (("x.pt", "--torch", "--model", "unet"), "is a checkpoint of the model smgarn, not of unet; leave out --model or use --model smgarn"),
    (("x.pt", "--torch", "--channels", "4"), "unknown flag --channels"),
    (("x.pt", "--torch", "--half"), "--half does not apply to --torch"),
    (("x.pt", "--onnx", "--card"), "--card needs --safetensors"),
    (("x.pt", "--safetensors", "--card", "--output", "full"), "full exists; with --card give the name of a new folder"),
    (("same.safetensors", "--safetensors"), "the output would replace same.safetensors"),
    (("x.pt", "--safetensors"), "x.safetensors exists; --output x.safetensors replaces it"),
])
def test_errors_that_the_user_can_correct(tool, flags, words):
    make("smgarn")
    Path("bad.pt").write_bytes(b"nonsense")
    torch.save({"state_dict": {}}, "other.pt")
    Path("full").mkdir()
    for name in ("same", "x"):
        Path(f"{name}.safetensors").write_bytes(Path("x.pt").read_bytes())
    status, text = tool(*flags)
    assert status == 2 and words in text and text.count("\n") == 1
    assert not list(Path().glob("*.pt2"))


def test_a_file_that_computes_something_else_is_not_kept(tool, monkeypatch):
    method = make("smgarn")
    monkeypatch.setattr(programs, "traced", lambda *_: None)
    for change, words in ((lambda x: x + 2e-4, "differs from the original by 0.0002"), (lambda x: x * torch.nan, "differs"),
                           (lambda x: x[..., 1:], "the exported file returns 1x3x32x39 for an input of 1x3x32x40")):
        monkeypatch.setattr(programs, "as_torch", lambda *_, change=change: (b"x", lambda path: lambda x: change(method.restore(x))))
        status, text = tool("x.pt", "--torch")
        assert status == 1 and words in text
        assert [path.name for path in Path().iterdir()] == ["x.pt"]


def test_a_model_that_cannot_be_exported_says_why(tool, monkeypatch):
    make("smgarn")

    def looks(self, image):
        return image if image.sum() > 0 else -image
    monkeypatch.setattr(programs.Restored, "forward", looks)
    status, text = tool("x.pt", "--torch")
    assert status == 1 and "the model smgarn cannot be exported: " in text and text.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["x.pt"]


def test_a_network_whose_shapes_the_exporter_cannot_follow(tool, monkeypatch):
    """An error of plain Python in its code, as of spandrel's Uformer, says little by its text."""
    make("smgarn")
    monkeypatch.setattr(programs.Restored, "forward", lambda self, image: image * image.shape[4])
    status, text = tool("x.pt", "--torch")
    assert status == 1 and text.count("\n") == 1
    assert ("the model smgarn cannot be exported: the class SMGARN computes with the height and width of its input in a way that the "
            "exporter cannot follow (IndexError: tuple index out of range)") in text


def test_missing_packages_are_named(tool, monkeypatch):
    make("smgarn")
    monkeypatch.setitem(sys.modules, "onnx", None)
    status, text = tool("x.pt", "--onnx")
    assert (status, text) == (2, "tool.export: error: --onnx needs the package onnx: pip install onnx onnxscript onnxruntime\n")
