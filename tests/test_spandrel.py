"""--model spandrel: files of weights made with spandrel's own classes are recognised, tested, trained and exported."""
import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

import model
import unweather
from contract import Batch, Stage
from model import teacher, weights
from runtime import files
from runtime.errors import UserError
from tests import small
from tests.conftest import photo
from tests.test_export import tool as tool

theirs = pytest.importorskip("spandrel", reason="the extra 'spandrel' is not installed")
ours = model.package("spandrel")
NOISY = ("DRUNet", "FDnCNN")
SHORT = ("--epochs", "1", "--test_every", "2", "--batch_size", "2", "--patch_size", "16", "--n_threads", "0", "--cpu", "--no-report")


def built(name: str, noise_level: float = ours.NOISE, path: str = "tiny.pth"):
    """Return our method for a file that is written with a class of spandrel."""
    small.write_foreign(name, path)
    return ours.build(Namespace(pre_train=path, noise_level=noise_level))


def refusal(content: dict, **flags) -> str:
    torch.save(content, "w.pth")
    with pytest.raises(UserError) as caught:
        ours.build(Namespace(**({"pre_train": "w.pth", "noise_level": ours.NOISE} | flags)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@torch.inference_mode()
@pytest.mark.parametrize("name", small.FOREIGN)
def test_equals_spandrels_call_and_takes_any_size(place, name):
    """Batches give what spandrel's own call gives for one image, clipped; sides are padded as the network needs."""
    method = built(name).eval()
    call = theirs.ModelLoader().load_from_state_dict(small.foreign(name).state_dict()).eval()
    x = torch.rand(2, 3, 44, 48) if name in ("NAFNet", "KBNet") else torch.rand(2, 3, 41, 44)       # those pad with zeros themselves
    again = torch.cat([call(x[:1]), call(x[1:])])
    assert (method.restore(x).clamp(0, 1) - again).abs().max() < 1e-5
    assert method.restore(torch.rand(1, 3, 5, 7)).shape == (1, 3, 5, 7)
    need = call.size_requirements
    assert method.multiple_of % need.multiple_of == 0
    assert (method.least_side, method.square) == (max(need.minimum, 1), need.square)
    assert (name == "Uformer") is method.square


@pytest.mark.parametrize("name", ["NAFNet", "DnCNN", "FDnCNN", "DRUNet", "SCUNet"])
def test_steps_change_the_weights_and_lower_the_loss(place, name):
    method, x = built(name), torch.rand(2, 3, 40, 40)
    before = {key: value.clone() for key, value in method.network.state_dict().items()}
    method.train().enter(Stage(1, "1*L1", 40, 2))
    optimizer, losses = torch.optim.Adam(method.parameters(), 1e-3), []
    for _ in range(6):
        optimizer.zero_grad()
        loss = (method(Batch(["a", "b"], x, {}, torch.zeros(2)))["image"] - x).abs().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    after = method.network.state_dict()
    assert all(not torch.equal(before[key], after[key]) for key in before if before[key].is_floating_point() and before[key].dim() == 4)


def test_the_output_is_not_clipped(place):
    """A clipped output would have no gradient where the network leaves [0, 1]."""
    method = built("DnCNN")
    image = method.predict(torch.full((1, 3, 16, 16), 3.0))["image"]
    assert image.max() > 1
    image.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in method.parameters())


@torch.inference_mode()
@pytest.mark.parametrize("name", NOISY)
def test_the_noise_level_is_an_input(place, name):
    method, x = built(name, 50.0).eval(), torch.rand(2, 3, 16, 24)
    assert torch.equal(method.restore(x), method.network(torch.cat([x, torch.full((2, 1, 16, 24), 50 / 255)], 1)))
    assert not torch.allclose(method.restore(x), built(name, 10.0).eval().restore(x))


def test_networks_without_a_noise_level_refuse_one(place):
    content = small.foreign("NAFNet").state_dict()
    assert "--noise_level 25 has no effect: w.pth is a NAFNet, which takes none" in refusal(content, noise_level=25.0)


def test_train_test_resume_teach_and_load(run, fails, pairs):
    """From the file of another program to a model file of this one, which needs no other file for tests, Python and teaching."""
    small.write_foreign("DRUNet")
    flags = ("--model", "spandrel", "--pre_train", "tiny.pth", "--noise_level", "25", "--data_train", "set", *SHORT)
    status, text = run(*flags, "--save", "x")
    assert status == 0 and "tensors matched" in text, text
    assert run("--load", "x", "--resume", "-1", "--epochs", "2", "--cpu")[0] == 0
    assert run("--load", "x", "--test_only", "--cpu", "--chop", "--tile", "32")[0] == 0
    Path("tiny.pth").unlink()
    best = "experiment/x/model/model_best.pt"
    status, text = run("--test_only", "--pre_train", best, "--dir_demo", "dataset/set/input", "--save_results", "--save", "demo", "--cpu")
    assert status == 0 and len(list(Path("experiment/demo").rglob("*.png"))) == 4, text
    assert files.read_tensors(best)["arguments"]["noise_level"] == 25.0
    method = unweather.load(best)
    assert method.noise_level == 25.0 and unweather.restore(method, photo(33, 41, 0)).shape == (33, 41, 3)
    assert isinstance(teacher.Teacher(best, "", method, torch.device("cpu")).method, ours.Recognised)
    assert theirs.ModelLoader().load_from_state_dict(files.read_tensors(best)["state"]).architecture.name == "DRUNet"
    assert "the file tiny.pth does not exist" in fails("--load", "x", "--resume", "-1", "--epochs", "3", "--cpu")


@pytest.mark.parametrize("name", ["FDnCNN", *(pytest.param(name, marks=pytest.mark.slow) for name in ("DRUNet", "NAFNet", "KBNet"))])
def test_tools_read_the_file_of_another_program(tool, name):
    from tool import serve
    small.write_foreign(name)
    named = ("--model", "spandrel", *(("--noise_level", "25") if name in NOISY else ()))
    status, text = tool("tiny.pth", "--torch", *named)
    assert status == 0, text
    facts = {"unweather.json": ""}
    program = torch.export.load("tiny.pt2", extra_files=facts).module()
    method, x = built(name, 25.0 if name in NOISY else ours.NOISE).eval(), torch.rand(2, 3, 43, 50)
    assert (program(x) - method.restore(x)).abs().max() < 1e-5 and json.loads(facts["unweather.json"])["model"] == "spandrel"
    assert tool("tiny.pth", "--safetensors", *named)[0] == 0
    assert torch.equal(weights.load("tiny.safetensors").restore(x), method.restore(x))
    assert list(serve.find(["tiny.pth"], {"model": "spandrel"})) == ["tiny (spandrel)"]


@pytest.mark.parametrize("around", [
    lambda state: {"params_ema": state},
    lambda state: {"state_dict": {f"net.{key}": value for key, value in state.items()}},
    lambda state: {f"module.{key}": value for key, value in state.items()},
], ids=["ema", "lightning", "module"])
@pytest.mark.parametrize("name", ["DnCNN", "SCUNet"])         # the names of the first begin with `model.` themselves
def test_weights_in_other_wrappings(place, name, around):
    torch.save(around(small.foreign(name).state_dict()), "w.pth")
    method = ours.build(Namespace(pre_train="w.pth", noise_level=ours.NOISE))
    count = len(method.network.state_dict())
    assert f"{count} of {count} tensors matched" in weights.load_weights(method, "w.pth", "spandrel")


def test_files_that_it_does_not_take(place):
    from spandrel.architectures.DnCNN import DnCNN
    from spandrel.architectures.RCAN import RCAN
    assert "is of no network that spandrel" in refusal({"a.weight": torch.rand(3, 3)})
    assert "is of no network that spandrel" in refusal({})
    grey = DnCNN(in_nc=1, out_nc=1, nc=4, nb=9, act_mode="R").state_dict()
    assert "w.pth is a DnCNN of scale 1 with 1 channels in and 1 out; --model spandrel takes" in refusal(grey)
    larger = RCAN(scale=2, n_resgroups=1, n_resblocks=1, n_feats=8, reduction=4).state_dict()
    assert "w.pth is a RCAN of scale 2 with 3 channels in and 3 out" in refusal(larger)
    half = dict(list(small.foreign("SCUNet").state_dict().items())[:-4])
    assert "resembles a network that spandrel" in refusal(half | {"m_tail.0.weight": torch.rand(3, 3)})


def test_a_network_larger_than_the_file_is_not_built(place):
    """Arguments that spandrel reads from sizes of tensors may describe any network; the construction ends where the file does."""
    content = small.foreign("NAFNet").state_dict()
    content["intro.weight"] = torch.zeros(10_000, 0, 3, 3)        # no values, but the width of the network
    assert "the weights describe a larger network than the file contains" in refusal(content)


def test_damaged_weights_are_refused(run, place):
    network = small.foreign("NAFNet")
    with torch.no_grad():
        network.intro.weight[0, 0, 0, 0] = float("nan")
    torch.save(network.state_dict(), "w.pth")
    status, text = run("--model", "spandrel", "--pre_train", "w.pth", "--test_only", "--data_test", "DemoRain", "--cpu")
    assert status == 2 and "w.pth is damaged: 'intro.weight' contains values that are not finite" in text


def test_what_the_user_must_give(fails, pairs, monkeypatch):
    flags = ("--model", "spandrel", "--data_train", "set", "--save", "y", *SHORT)
    assert "the model spandrel needs --pre_train FILE, because" in fails(*flags)
    small.write_foreign("MixDehazeNet")
    assert "--patch_size 16: this MixDehazeNet needs sides from 40 pixels" in fails(*flags, "--pre_train", "tiny.pth")
    small.write_foreign("FFTformer")
    assert "the model spandrel needs a multiple of 32" in fails(*flags, "--pre_train", "tiny.pth")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    assert "needs the package of this name: pip install spandrel" in fails(*flags, "--pre_train", "tiny.pth")
    assert not Path("experiment/y").exists()


def test_images_for_an_export_are_large_enough(place):
    """Without a multiple, the smallest side of 40 pixels decides how large the images are on which an export is traced and checked."""
    from restore import programs
    method = built("MixDehazeNet")
    assert method.multiple_of == 1 and programs.smallest(method) == 40 and 3 * programs.least_unit(method) >= 40
