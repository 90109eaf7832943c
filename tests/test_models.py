"""Tests of every model in model.MODELS: odd sizes, gradients, model file, flags. A new model is tested without a change here."""
import sys

import pytest
import torch

import model
import option
from contract import Batch, Stage
from model import weights
from model.method import Method
from runtime import files
from runtime.errors import UserError
from tests import small

DATA = ["--data_train", "DemoSnow", "--data_test", "DemoSnow"]


def args_of(name: str):
    """Return the parsed flags of a model in its small size."""
    return option.parse(["--model", name, *DATA, *small.flags(name)])


def tensors(prediction: dict) -> list[torch.Tensor]:
    """Return all tensors of a prediction."""
    return [part for value in prediction.values() for part in ([value] if isinstance(value, torch.Tensor) else value)]


@pytest.fixture(params=model.MODELS)
def name(request) -> str:
    return request.param


@pytest.fixture
def method(place, name):
    torch.manual_seed(0)
    return model.build(args_of(name))


def test_every_size_is_restored(method):
    with torch.inference_mode():
        for size in ((37, 51), (64, 33), (5, 7)):
            restored = method.eval().restore(torch.rand(2, 3, *size))
            assert restored.shape == (2, 3, *size) and restored.isfinite().all()


def test_every_trained_parameter_gets_a_gradient(method):
    """A parameter without a gradient would be trained without effect; a package must list it in `unused` or freeze it."""
    torch.manual_seed(1)
    side = max(2 * method.multiple_of, 32)
    x = torch.rand(2, 3, side, side)
    method.train().enter(Stage(1, "1*L1", side, 2))
    prediction = method(Batch(["a", "b"], x, {"image": x, "mask": x}, torch.zeros(2, dtype=torch.long)))
    method.check(prediction, x)
    sum((value.float() * torch.rand_like(value.float())).sum() for value in tensors(prediction)).backward()
    trained = {key: value for key, value in method.network.named_parameters() if value.requires_grad}
    assert trained
    assert [key for key, value in trained.items() if value.grad is None or not value.grad.isfinite().all()] == []
    assert any(value.grad.abs().sum() > 0 for value in trained.values())


def test_a_model_file_gives_the_same_network(place, name, method):
    files.write_tensors(place / "w.pt", weights.model_content(method, args_of(name), {}))
    x = torch.rand(1, 3, 37, 51)
    with torch.inference_mode():
        assert torch.equal(weights.load("w.pt", small.typed(name)).restore(x), method.eval().restore(x))


def test_flags_are_explained(place, name, capsys):
    with pytest.raises(SystemExit) as end:
        option.parse(["--model", name, *DATA, "--help"])
    text = capsys.readouterr().out
    assert not end.value.code
    assert [flag for flag in model.own_flags(name) if f"--{flag}" not in text] == []


def test_templates_are_flags_of_their_models(place):
    for template, (owner, flags) in model.templates().items():
        args = option.parse(["--template", template, *DATA])
        assert args.model == owner and {key: args.flags[key] for key in flags if not key.startswith("data_")} == {
            key: value for key, value in flags.items() if not key.startswith("data_")}, template


def wrong(answer) -> Method:
    """Return a method, as if of a package model/wrong, whose predict returns answer(x)."""
    kind = type("Wrong", (Method,), {"predict": lambda self, x: answer(x), "__module__": "model.wrong", "multiple_of": 4})
    return kind(torch.nn.Identity())


@pytest.mark.parametrize("answer, words", [
    (lambda x: x, "the model wrong: predict returned a Tensor, not a dictionary with 'image'"),
    (lambda x: (x, x), "predict returned a tuple, not a dictionary"),
    (lambda x: None, "predict returned None, not a dictionary"),
    (lambda x: {"clean": x, "mask": x}, "predict returned a dictionary without 'image'; it has: clean, mask"),
    (lambda x: {"image": [x]}, "the predicted 'image' is a list, not a tensor"),
    (lambda x: {"image": x[..., 1:]}, r"the predicted 'image' has the shape (2, 3, 8, 11) for an input of (2, 3, 8, 12)"),
    (lambda x: {"image": x[:, :1]}, "has the shape (2, 1, 8, 12)"),
    (lambda x: {"image": x[:1]}, "has the shape (1, 3, 8, 12)"),
    (lambda x: {"image": (x * 255).byte()}, "the predicted 'image' has the type torch.uint8"),
])
def test_a_wrong_prediction_is_one_sentence(answer, words):
    """`check`, which the Trainer calls before it writes files, and `restore` refuse a wrong prediction."""
    method, x = wrong(answer), torch.rand(2, 3, 8, 12)
    for call in (lambda: method.check(method.predict(x), x), lambda: method.restore(x[..., 1:])):
        with pytest.raises(UserError) as error:
            call()
        assert words in str(error.value)
    method = wrong(lambda x: {"image": x.bfloat16()})              # bfloat16, the type under autocast, is accepted
    method.check(method.predict(x), x)


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Return a function that adds a package with the given text to the models until the test ends."""
    def add(text: str, other: str = "") -> None:
        for file, content in (("__init__.py", text), ("network.py", other)):
            files.write_text(files.make_folder(tmp_path / "models" / "broken") / file, content)
        monkeypatch.setattr(model, "__path__", [*model.__path__, str(tmp_path / "models")])
        monkeypatch.setattr(model, "MODELS", ["broken", *model.MODELS])
    yield add
    for key in [key for key in sys.modules if key.startswith("model.broken")]:
        del sys.modules[key]


@pytest.mark.parametrize("text, other, words", [
    ("def build(:", "", "SyntaxError: invalid syntax (FOLDER/__init__.py, line 1)"),
    ("import no_such_package", "", "ModuleNotFoundError: No module named 'no_such_package' (FOLDER/__init__.py, line 1)"),
    ("from model.broken import network", "x = 1\ny = z", "NameError: name 'z' is not defined (FOLDER/network.py, line 2)"),
    ("RECIPE = {}", "", "model/broken/__init__.py does not define add_arguments, build, from_official"),
])
def test_a_model_that_does_not_import(run, fails, broken, tmp_path, text, other, words):
    """The message is one sentence with file and line; the other models are still listed and can be used."""
    broken(text, other)
    sentence = fails("--model", "broken")
    assert f"the model broken cannot be {'used' if 'does not define' in words else 'imported'}: " in sentence
    assert sentence.endswith(words.replace("FOLDER", str(tmp_path / "models" / "broken")))
    status, text = run("--list")
    assert status == 0 and f"  broken         BROKEN: {sentence.removeprefix('main.py: error: ')}\n" in text
    assert "\n  smgarn         SMGARN: " in text and "\n  demo           nafnet: " in text
    assert option.parse(["--template", "demo"]).model == "nafnet"


def backbone(text: str) -> Method:
    """Return the method of Rain2Avoid with a backbone."""
    return model.build(option.parse(["--model", "rain2avoid", "--data_train", "DemoRain", "--backbone", text]))


def test_a_backbone_has_its_own_flags(place):
    """They are written in brackets after its name and stored with it in the model file."""
    method = backbone("SAPNet(channels=16, recurrent_iter=2, use_dilation=false)")
    assert (method.network.steps, method.network.head.out_channels) == (2, 16)
    args = option.parse(["--model", "rain2avoid", *DATA, "--backbone", "sapnet( recurrent_iter = 2)", "--channels", "16"])
    files.write_tensors(place / "w.pt", weights.model_content(model.build(args), args, {}))
    assert weights.load("w.pt").network.steps == 2


@pytest.mark.parametrize("text, words", [
    ("sapnet(width=8)", "the backbone sapnet has no flag --width; it has --channels, --recurrent_iter, --use_dilation"),
    ("sapnet(recurrent_iter=x)", "--recurrent_iter: 'x' is not a whole number"),
    ("sapnet(use_dilation=3)", "use_dilation must be true or false, not '3'"),
    ("sapnet(recurrent_iter)", "write the flags of a backbone as name(flag=value, flag=value)"),
    ("sapnet(recurrent_iter=3", "write the flags of a backbone as"),
    ("sapnet(=3)", "write the flags of a backbone as"),
    ("sapnet()", "write the flags of a backbone as"),
])
def test_flags_that_a_backbone_does_not_have(place, text, words):
    with pytest.raises(UserError) as error:
        backbone(text)
    assert words in str(error.value)
