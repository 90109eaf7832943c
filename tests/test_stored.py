"""Model files of older versions are loaded and applied by every later version."""
import json
from pathlib import Path

import pytest
import torch

import model
import option
from model import weights
from runtime import VERSION, files
from runtime.errors import UserError
from tests.conftest import REPO
from tests.stored import rewrite, unpack
from tests.stored.make import NET, picture

STORED = [path for path in sorted((REPO / "tests" / "stored").glob("*/*.xz")) if path.name != "state.pt.xz"]
NAMES = [f"{path.parent.name}/{path.name[:-3]}" for path in STORED]
stored = pytest.mark.parametrize("packed", STORED, ids=NAMES)


def beside(packed: Path, ending: str) -> Path:
    return packed.with_name(packed.name.partition(".")[0] + ending)


def code(packed: Path) -> dict[str, str]:
    """Return the flag for the code of the network, which a file of the model external does not name."""
    return {"arch": f"{NET}:Net"} if packed.name.startswith("external.") else {}


def typed(packed: Path) -> list[str]:
    return [part for key, value in code(packed).items() for part in (f"--{key}", value)]


def check(method, packed: Path) -> None:
    """Compare the result of a method with the result of the version that wrote the file, on the same image.

    The allowed difference is 1e-4 of the result's standard deviation. The results are stored with 6 decimals, and the networks
    compute in float32 (rounding error 6e-8), where another processor adds in another order. The kernels for AVX-512, AVX2 and
    for no extension (ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA) gave at most 5e-6 for the files of 0.1.0; one weight tensor
    multiplied by 0.9 gives 3e-4 to 5e-1.
    """
    with torch.inference_mode():
        found = method.eval().restore(picture())[0, :, ::4, ::5].flatten()
    expected = torch.tensor(json.loads(beside(packed, "-result.json").read_text()))
    assert (found - expected).abs().max() < 1e-4 * expected.std()


def test_the_stored_files_are_there():
    assert sum(name.startswith("0.1.0/") for name in NAMES) == 10
    assert {"0.2.0/nafnet.pt", "0.2.0/nafnet.safetensors", "0.2.0/external.pt"} <= set(NAMES)


@stored
def test_a_stored_file_is_loaded_and_applied(place, packed):
    check(weights.load(unpack(packed, "old.pt"), code(packed)), packed)


@stored
def test_a_stored_file_is_tested_by_main(place, packed):
    args = option.parse(["--test_only", "--pre_train", str(unpack(packed, "old.pt")), "--data_test", "DemoRain", *typed(packed)])
    method = model.build(args)
    assert "tensors matched" in weights.load_weights(method, args.pre_train, args.model)
    check(method, packed)


@stored
def test_the_flags_of_a_stored_file_are_read(place, packed):
    """The args.json that belongs to the file describes the same network when given by --config."""
    config = beside(packed, ".json")
    args = option.parse(["--config", str(config), *typed(packed)])
    method = model.build(args)
    weights.load_weights(method, unpack(packed, "old.pt"), args.model)
    check(method, packed)


def with_a_new_argument(monkeypatch, name: str) -> None:
    package, before = model.package(name), model.package(name).add_arguments

    def add_arguments(group, *rest, **more):
        before(group, *rest, **more)
        group.add_argument("--gates", type=int, default=3)
    monkeypatch.setattr(package, "add_arguments", add_arguments)


@stored
def test_a_new_argument_has_its_default(place, monkeypatch, packed):
    """A file that was written before an argument existed gets the argument's default, not the value of the recipe."""
    path = unpack(packed, "old.pt")
    name = weights.describe(path)["model"]
    with_a_new_argument(monkeypatch, name)
    weights.forget()
    monkeypatch.setitem(model.package(name).RECIPE, "gates", 7)
    assert weights.describe(path)["gates"] == 3
    args = option.parse(["--test_only", "--pre_train", str(path), "--data_test", "DemoRain", *typed(packed)])
    assert args.gates == 3
    check(weights.load(path, code(packed)), packed)
    assert weights.model_content(model.build(args), args, {})["arguments"]["gates"] == 3


def refused(path: Path) -> str:
    weights.forget()
    with pytest.raises(UserError) as error:
        weights.load(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_unknown_argument_is_refused(old, fails):
    """One sentence names the file, the argument, the version that wrote it and the correction; main prints the same sentence."""
    arguments = weights.describe(old)
    stated = {key: arguments[key] for key in ("channels", "rgb_range", "n_colors")}
    rewrite(old, arguments=stated | {"gates": 3})
    assert refused(old) == (f"old.pt states the argument 'gates', which smgarn does not have in unweather {VERSION}: it takes channels, "
                            "rgb_range, n_colors; use the version that wrote the file, or a newer one")
    rewrite(old, version="9.1.0")
    assert refused(old).startswith("old.pt (written by unweather 9.1.0) states the argument 'gates'")
    assert "old.pt (written by unweather 9.1.0) states the argument 'gates'" in fails("--test_only", "--pre_train", old, "--cpu")


@pytest.mark.parametrize("key, value", [("channels", [4]), ("channels", "wide"), ("channels", 4.5), ("channels", True), ("channels", None),
                                        ("channels", 0), ("n_colors", 4), ("rgb_range", float("nan")), ("rgb_range", torch.zeros(9, 9))])
def test_a_value_that_cannot_be(old, key, value):
    """Arguments are checked like typed flags: type, range, choices."""
    rewrite(old, arguments={"channels": 4, "rgb_range": 255.0, "n_colors": 3} | {key: value})
    assert refused(old).startswith(f"old.pt: the argument '{key}' of smgarn cannot be ")


def test_a_switch_is_a_switch(place):
    path = unpack(REPO / "tests/stored/0.1.0/sapnet.pt.xz", "old.pt")
    arguments = files.read_tensors(path)["arguments"]
    assert arguments["use_dilation"] is False
    rewrite(path, arguments=arguments | {"use_dilation": "no"})
    assert "the argument 'use_dilation' of sapnet cannot be 'no'; its default is True" in refused(path)


def test_a_package_translates_old_arguments(old, monkeypatch):
    """The package receives old arguments and the version that wrote them, 0.1.0 if none is stated."""
    versions = []

    def translate(arguments: dict, version: tuple[int, ...]) -> dict:
        versions.append(version)
        arguments.pop("dropped", None)
        return {"channels": arguments.pop("width")} | arguments if "width" in arguments else arguments
    monkeypatch.setattr(model.package("smgarn"), "translate", translate, raising=False)
    rewrite(old, arguments={"width": 4, "dropped": 1, "rgb_range": 255.0, "n_colors": 3})
    assert weights.describe(old)["channels"] == 4
    check(weights.load(old), REPO / "tests/stored/0.1.0/smgarn.pt.xz")
    rewrite(old, version="0.10.2", arguments={"channels": 4})
    assert weights.read(old).arguments == {"channels": 4, "rgb_range": 255.0, "n_colors": 3}
    assert versions == [(0, 1, 0), (0, 10, 2)]
    rewrite(old, arguments={"widht": 4})
    assert "states the argument 'widht'" in refused(old)


def test_a_newer_format_says_so(old):
    rewrite(old, format="unweather model 2", version="0.7.0")
    assert refused(old) == (f"old.pt has the format 'unweather model 2' (written by unweather 0.7.0), but unweather {VERSION} reads "
                            "'unweather model 1'; use the version that wrote it, or a newer one")


def test_a_file_of_ours_that_is_not_whole(old):
    rewrite(old, note=None)
    assert refused(old) == "old.pt is not a complete model file: it lacks 'note'"
    unpack(REPO / "tests/stored/0.1.0/state.pt.xz", "state.pt")
    assert "state.pt is the state of a training, not a model file" in refused(Path("state.pt"))


def test_new_files_say_who_wrote_them(trained):
    pyproject = (REPO / "pyproject.toml").read_text()
    assert f'\nversion = "{VERSION}"\n' in pyproject
    for name in ("model_best.pt", "model_latest.pt", "state.pt"):
        assert files.read_tensors(trained / "model" / name)["version"] == VERSION
