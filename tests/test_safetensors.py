"""Model files as safetensors: bit-equal when read back, readable by other programs, and refused in one sentence when damaged."""
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import model
import option
import unweather
from model import names, weights
from runtime import VERSION, files, safetensors
from runtime.errors import UserError
from tests import small
from tests.conftest import photo
from tests.test_export import make
from tests.test_export import tool as tool
from tool import portable

NAFNET = ["--model", "nafnet", "--channels", "4", "--blocks", "1-1/1/1-1"]


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(value.dtype == second[key].dtype and torch.equal(value, second[key])
                                                 for key, value in first.items())


def refused(path: str = "y.safetensors", typed: dict | None = None) -> str:
    """Return the sentence with which a file is refused."""
    weights.forget()
    with pytest.raises(UserError) as caught:
        weights.load(path, typed)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", model.MODELS)
def test_every_model_comes_back(tool, name):
    """The file states model, arguments and note; its tensors have the released names where there are such; all are bit-equal."""
    method = make(name)
    files.write_tensors(Path("x.pt"), files.read_tensors("x.pt") | {"note": {"epoch": 3, "score": 21.5, "data_train": "Rain100L"}})
    status, text = tool("x.pt", "--safetensors", "--output", "y.safetensors", *small.code(name))
    count = len(method.network.state_dict())
    assert status == 0 and f"read back, all {count} tensors are equal" in text, text
    first, second = weights.read("x.pt"), weights.read("y.safetensors")
    assert second[:3] == first[:3] == (name, first.arguments, {"epoch": 3, "score": 21.5, "data_train": "Rain100L"})
    assert same(weights.load("y.safetensors", small.typed(name)).network.state_dict(), method.network.state_dict())
    stored, theirs = load_file("y.safetensors"), names.released(method)
    assert stored.keys() == (method.network.state_dict() if theirs is None else theirs).keys()
    assert ("names of the released files" in text) is (theirs is not None) is second.released
    assert {path.name for path in Path().iterdir()} - {"tiny.pth"} == {"x.pt", "y.safetensors"}


@torch.inference_mode()
def test_main_and_python_read_it(tool, run):
    method = make("smgarn")
    assert tool("x.pt", "--safetensors")[0] == 0
    args = option.parse(["--test_only", "--pre_train", "x.safetensors", "--data_test", "DemoSnow"])
    built = model.build(args)
    assert weights.load_weights(built, args.pre_train, args.model) == "x.safetensors (own file): 130 of 130 tensors matched"
    assert same(built.network.state_dict(), method.network.state_dict())
    assert (unweather.restore(unweather.load("x.safetensors"), photo(24, 20, 1)) == unweather.restore(method, photo(24, 20, 1))).all()
    Path("x.safetensors").rename("renamed.pt")            # the content decides
    assert same(weights.load("renamed.pt").network.state_dict(), method.network.state_dict())
    assert tool("renamed.pt", "--safetensors", "--output", "again.safetensors")[0] == 0
    assert Path("again.safetensors").read_bytes() == Path("renamed.pt").read_bytes()          # every export gives the same bytes


@torch.inference_mode()
def test_spandrel_opens_our_nafnet_and_it_comes_back(tool):
    spandrel = pytest.importorskip("spandrel")
    method = make("nafnet")
    assert tool("x.pt", "--safetensors")[0] == 0
    theirs = spandrel.ModelLoader().load_from_state_dict(load_file("x.safetensors"))
    assert theirs.architecture.name == "NAFNet"
    x = torch.rand(1, 3, 32, 48)
    assert (theirs.model.eval()(x) - method.restore(x)).abs().max() < 1e-5
    save_file(theirs.model.state_dict(), "back.safetensors")
    args = option.parse([*NAFNET, "--test_only", "--pre_train", "back.safetensors", "--data_test", "DemoSnow"])
    built = model.build(args)
    assert "(released file)" in weights.load_weights(built, args.pre_train, args.model)
    assert same(built.network.state_dict(), method.network.state_dict())
    typed = {"model": "nafnet", "channels": 4, "blocks": "1-1/1/1-1"}
    assert same(weights.load("back.safetensors", typed).network.state_dict(), method.network.state_dict())


@torch.inference_mode()
def test_half_is_checked(tool, monkeypatch):
    method = make("nafnet")
    status, text = tool("x.pt", "--safetensors", "--half")
    assert status == 0 and "float16, names of the released files; greatest difference from the original 0.0" in text
    assert Path("x.safetensors").stat().st_size < 0.8 * Path("x.pt").stat().st_size
    stored = load_file("x.safetensors")
    assert stored["intro.weight"].dtype == torch.float16 and stored["intro.bias"].dtype == torch.float32
    expected = {key: portable.halved(value).to(value.dtype) for key, value in method.network.state_dict().items()}
    assert same(weights.load("x.safetensors").network.state_dict(), expected)
    Path("x.safetensors").unlink()
    monkeypatch.setattr(portable, "halved", lambda value: (value * 1.1).half() if value.dim() > 1 else value)
    status, text = tool("x.pt", "--safetensors", "--half")
    assert status == 1 and "at least 60 dB are required; it was not saved" in text
    assert [path.name for path in Path().iterdir()] == ["x.pt"]


def test_a_file_that_does_not_come_back_is_not_kept(tool, monkeypatch):
    make("smgarn")
    package = model.package("smgarn")
    Path("y.safetensors").write_text("an older file")
    monkeypatch.setattr(safetensors, "encoded", lambda content, real=safetensors.encoded: real(
        content | {"state": {key: value + (key == "Stage_I.head.0.bias") for key, value in content["state"].items()}}))
    status, text = tool("x.pt", "--safetensors", "--output", "y.safetensors")
    assert status == 1 and "'mask_net.head.0.bias' has other values; it was not saved" in text
    assert Path("y.safetensors").read_text() == "an older file" and package.TINY == {"channels": 4}


def test_shared_and_strided_tensors(place):
    """Tensors that share memory, or are views, are written as tensors of their own."""
    x = torch.arange(12.0).view(3, 4)
    state = {"a": x, "b": x, "c": x.t(), "d": x[1:, ::2], "e": torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last),
             "f": torch.tensor(7), "g": torch.zeros(0), "h": torch.ones(2, dtype=torch.bool), "i": torch.ones(2, dtype=torch.bfloat16)}
    content = {"format": "x", "arguments": {"a": [1, None, True, 2.5, "é\n"]}, "note": {}, "state": state}
    data = safetensors.encoded(content)
    found = safetensors.decoded("x", data)
    assert found.pop("state").keys() == state.keys() and found == {key: value for key, value in content.items() if key != "state"}
    Path("x.safetensors").write_bytes(data)
    assert same(load_file("x.safetensors"), {key: value.contiguous() for key, value in state.items()})
    storages = {value.untyped_storage().data_ptr() for value in files.read_tensors("x.safetensors")["state"].values() if value.numel()}
    assert len(storages) == 8


def test_a_note_of_other_values_is_refused(tool):
    make("smgarn")
    files.write_tensors(Path("x.pt"), files.read_tensors("x.pt") | {"note": {"epoch": torch.zeros(2)}})
    status, text = tool("x.pt", "--safetensors")
    assert status == 2 and "arguments or note hold other values than texts and numbers" in text
    assert [path.name for path in Path().iterdir()] == ["x.pt"]


def rewritten(change) -> None:
    """Change the header of y.safetensors, a dictionary, in place."""
    data = Path("y.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    change(header)
    text = json.dumps(header).encode()
    Path("y.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length:])


FIRST = "Stage_I.head.0.weight"
DAMAGE = "y.safetensors is damaged or is not a file of weights"
SUM = "y.safetensors is damaged: its checksum is wrong"
HEADERS = [
    (lambda h: h.pop(FIRST), DAMAGE),                                                # leaves a hole
    (lambda h: h[FIRST].update(dtype="F99"), DAMAGE),
    (lambda h: h[FIRST].update(shape=[10**9, 10**9]), DAMAGE),
    (lambda h: h[FIRST].update(shape=[-1]), DAMAGE),
    (lambda h: h[FIRST].update(data_offsets=[0, 10**12]), DAMAGE),
    (lambda h: h.update(x=dict(h[FIRST])), DAMAGE),                                  # two tensors at one place
    (lambda h: h["__metadata__"].update(x=1), DAMAGE),
    (lambda h: h.update(__metadata__=[]), DAMAGE),
    (lambda h: h["__metadata__"].update({"unweather.model": "unet"}), SUM),
    (lambda h: h["__metadata__"].pop("unweather.sha256"), SUM),
    (lambda h: h["__metadata__"].pop("unweather.format"), "y.safetensors does not state its model; name it with --model NAME"),
    (lambda h: h.pop("__metadata__"), "does not state its model"),
]


@pytest.mark.parametrize("change, words", HEADERS, ids=range(len(HEADERS)))
def test_a_damaged_header(tool, change, words):
    make("smgarn")
    assert tool("x.pt", "--safetensors", "--output", "y.safetensors")[0] == 0
    rewritten(change)
    assert words in refused()


CONTENTS = [
    ({"arguments": {"channels": 10**6}}, "they describe a larger network than the file contains"),
    ({"arguments": {"channels": "four"}}, "the argument 'channels' of smgarn cannot be 'four'"),
    ({"arguments": {"widht": 4}}, "states the argument 'widht', which smgarn does not have"),
    ({"arguments": [4]}, "it lacks 'arguments'"),
    ({"note": None}, "it lacks 'note'"),
    ({"model": "nonet"}, "is of the unknown model 'nonet'"),
    ({"format": "unweather model 9"}, "has the format 'unweather model 9'"),
    ({"format": "unweather state 2"}, "is the state of a training, not a model file"),
    ({"names": "released"}, "does not fit the model smgarn"),
]


@pytest.mark.parametrize("change, words", CONTENTS, ids=range(len(CONTENTS)))
def test_bad_contents(place, change, words):
    """A file with a right checksum is checked like a .pt file."""
    make("smgarn")
    content = files.read_tensors("x.pt")
    assert content["version"] == VERSION
    if change == {"names": "released"}:
        content["state"] = {f"Stage_I.{key}": value for key, value in content["state"].items()}
    Path("y.safetensors").write_bytes(safetensors.encoded(content | change))
    assert words in refused()


@pytest.mark.parametrize("value, words", [
    (torch.full((4, 3, 3, 3), torch.nan), "'mask_net.head.0.weight' contains values that are not finite"),
    (torch.zeros(4, 3, 3, 3, dtype=torch.complex64), "complex64"),
    (torch.zeros(4, 3, 3, 3).to(torch.float8_e4m3fn), "float8_e4m3fn"),
    (torch.zeros(1), "'mask_net.head.0.weight' should have the shape (4, 3, 3, 3) and has (1,)"),
])
def test_bad_tensors_of_another_program(place, value, words):
    method = make("smgarn")
    save_file(names.released(method) | {FIRST: value}, "y.safetensors")
    assert words in refused(typed={"model": "smgarn", "channels": 4})


def test_cut_and_flipped_files(tool):
    """Wherever a file is cut or a bit of its tensors is flipped, the sentence is the same as for a damaged .pt file."""
    make("smgarn")
    assert tool("x.pt", "--safetensors", "--output", "y.safetensors")[0] == 0
    data = Path("y.safetensors").read_bytes()
    for length in (0, 1, 7, 8, 9, 10, 100, len(data) // 2, len(data) - 1):
        Path("y.safetensors").write_bytes(data[:length])
        assert refused().startswith(DAMAGE), length
    Path("y.safetensors").write_bytes(data + b"x")
    assert refused().startswith(DAMAGE)
    for place in range(int.from_bytes(data[:8], "little") + 8, len(data), len(data) // 7):
        Path("y.safetensors").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1:])
        assert refused() == SUM, place
    Path("y.safetensors").write_bytes((2**63).to_bytes(8, "little") + data[8:])
    assert refused().startswith(DAMAGE)


def test_typed_flags_change_a_file_of_ours(place):
    """A network that its file describes can be changed as in main.py: here by means over windows."""
    make("nafnet")
    assert weights.network_flags("x.pt")["tlc"] == 0
    assert weights.load("x.pt", {"model": "nafnet", "tlc": 64}).network.encoders[0][0].attention.window == 96


def test_the_package_is_named_when_it_is_missing(tool, monkeypatch):
    make("smgarn")
    assert tool("x.pt", "--safetensors")[0] == 0
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    assert refused("x.safetensors").endswith("reading it needs the package safetensors: pip install safetensors")
