"""Losses on features of pretrained networks: weights, gradients, memory, several processes."""
import re
import sys
import types
from argparse import Namespace
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

import loss
from contract import Batch
from loss import lpips, pretrained, segmentation
from model.sapnet.network import SAPNet
from runtime.errors import UserError
from tests.parity import released_state

FILES = {"vgg16": "vgg16-397923af.pth", "vgg19": "vgg19-dcbb9e9d.pth", "alexnet": "alexnet-owt-7be5be79.pth",
         "resnet101": "resnet101-63fe2227.pth"}                    # torchvision's names
TINY = ["--model", "sapnet", "--data_train", "set", "--data_test", "set", "--save", "x", "--channels", "16", "--recurrent_iter", "1",
        "--epochs", "2", "--val_epochs", "2", "--test_every", "1", "--batch_size", "2", "--patch_size", "32", "--n_threads", "0",
        "--no-audit", "--cpu"]


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A folder of random weights in half precision under torchvision's names."""
    from torchvision import models
    folder = tmp_path_factory.mktemp("weights")
    for name, file in FILES.items():
        with torch.device("meta"):
            network = pretrained.VGG(int(name[3:])) if name.startswith("vgg") else getattr(models, name)()
        shapes = [(key, list(value.shape)) for key, value in network.state_dict().items() if not key.startswith("classifier")]
        state = released_state({"seed": 7, "state_dict": shapes})
        torch.save({key: value.half() if value.is_floating_point() else value for key, value in state.items()}, folder / file)
    return folder


@pytest.fixture(autouse=True)
def forget():
    """Remove the networks from memory before and after a test."""
    for cache in (pretrained._vgg, segmentation._network):
        cache.cache_clear()
    yield
    for cache in (pretrained._vgg, segmentation._network):
        cache.cache_clear()


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Make downloads fail, with an empty download cache."""
    def refuse(*args, **options):
        raise URLError("no route to host")
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))


class Distance(nn.Module):
    """The interface of lpips.LPIPS: AlexNet's convolutions with its names, and a distance of the features of the first."""

    def __init__(self, net: str, pnet_rand: bool, verbose: bool):
        super().__init__()
        assert net == "alex" and pnet_rand
        print("Setting up [LPIPS]")
        self.net = nn.Module()
        sizes = {"0": (3, 64, 11), "3": (64, 192, 5), "6": (192, 384, 3), "8": (384, 256, 3), "10": (256, 256, 3)}
        for number, (name, size) in enumerate(sizes.items(), 1):
            self.net.add_module(f"slice{number}", nn.Sequential())
            getattr(self.net, f"slice{number}").add_module(name, nn.Conv2d(*size))

    def forward(self, a: Tensor, b: Tensor, normalize: bool) -> Tensor:
        assert normalize and a.shape[-2:] == b.shape[-2:] == (256, 256)
        features = [nn.functional.conv2d(x, self.net.slice1[0].weight, self.net.slice1[0].bias, stride=8) for x in (a, b)]
        return (features[0] - features[1]).abs().mean((1, 2, 3), keepdim=True)


@pytest.fixture
def package(monkeypatch):
    """A stand-in for the package lpips."""
    module = types.ModuleType("lpips")
    module.LPIPS = Distance
    monkeypatch.setitem(sys.modules, "lpips", module)


def make(spec: str, folder: Path, **flags) -> loss.Loss:
    usual = dict(vgg=0, vgg_weights="", weights_dir=str(folder), num_of_SegClass=21, loss=spec)
    return loss.Loss(spec, Namespace(**usual | flags))


def sample(count: int = 2, side: int = 32) -> tuple[dict, Batch]:
    """A prediction and a batch of random images, all with requires_grad."""
    torch.manual_seed(0)
    image, one, two, x, truth = (torch.rand(count, 3, side, side, requires_grad=True) for _ in range(5))
    return {"image": image, "restored": [image, one, two]}, Batch(["a"] * count, x, {"image": truth}, torch.zeros(count))


@pytest.mark.parametrize("name", ["SCR", "HCR", "PCL", "POCL", "LPISL", "UBS"])
def test_where_gradients_go(weights, package, name):
    """Only the network's outputs get a gradient, not target, input or the networks of the loss, which stay in eval mode."""
    prediction, batch = sample()
    term = make(f"1*{name}", weights).train()
    before = {key: value.clone() for key, value in term.state_dict().items() if "running" in key}
    term(prediction, batch)[0].backward()
    assert prediction["image"].grad.any()
    assert [bool(p.grad is not None and p.grad.any()) for p in prediction["restored"][1:]] == [name == "POCL"] * 2
    assert batch.input.grad is None and batch.targets["image"].grad is None
    assert [key for key, p in term.named_parameters() if p.requires_grad or p.grad is not None] == []
    assert not any(module.training for module in term.modules() if isinstance(module, nn.BatchNorm2d))
    assert all(torch.equal(value, term.state_dict()[key]) for key, value in before.items()) and bool(before) == (name == "UBS")


def test_similarity_sees_the_whole_batch(weights, package, capsys):
    prediction, batch = sample()
    term = make("1*LPISL", weights)
    loaded = term.terms[0].network.net.state_dict()
    file = torch.load(weights / FILES["alexnet"], weights_only=True)
    assert torch.equal(loaded["slice5.10.bias"], file["features.10.bias"].float()) and capsys.readouterr().out == ""
    value = term(prediction, batch)[0]
    prediction["image"] = torch.cat([prediction["image"][:1], batch.targets["image"][1:]])
    assert term(prediction, batch)[0].item() == pytest.approx(value.item() / 2, rel=0.2)
    prediction["image"] = batch.targets["image"]
    assert term(prediction, batch)[0].item() == 0


def test_inverted():
    ramp = torch.linspace(0.2, 0.6, 256).expand(2, 3, 256, 256) * torch.tensor([1.0, 0.5]).view(2, 1, 1, 1)
    expected = torch.linspace(1, 0, 256).expand(2, 3, 256, 256)     # every image is scaled separately
    torch.testing.assert_close(lpips.inverted(ramp), expected, atol=1e-6, rtol=1e-5)
    assert lpips.inverted(torch.rand(1, 3, 40, 31).bfloat16()).shape == (1, 3, 256, 256)
    assert torch.equal(lpips.inverted(torch.full((1, 3, 8, 8), 0.5)), torch.ones(1, 3, 256, 256))


def test_one_network_in_memory(weights, package):
    """Terms use one VGG, the segmentation is always the same, and the state of torch's random numbers does not change."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    both = make("1*SCR+1*HCR+1*POCL+1*UBS+1*LPISL", weights)
    assert torch.equal(torch.get_rng_state(), before)
    assert both.terms[0].vgg is both.terms[1].vgg is both.terms[2].vgg and make("1*SCR", weights).terms[0].vgg is both.terms[0].vgg
    assert make("1*PCL", weights).terms[0].vgg is not both.terms[0].vgg
    assert make("1*PCL", weights, vgg=19).terms[0].vgg is both.terms[0].vgg
    first = both.terms[3].network
    assert make("1*UBS", weights).terms[0].network is first
    segmentation._network.cache_clear()
    torch.manual_seed(4)
    again = make("1*UBS", weights).terms[0].network
    assert again is not first and all(torch.equal(value, first.state_dict()[key]) for key, value in again.state_dict().items())
    assert first.fpn.classify.weight.std().item() == pytest.approx(0.01, rel=0.05) and not first.fpn.classify.bias.any()


def test_vgg_weights(run, weights, pairs, offline):
    status, text = run(*TINY, "--loss", "1*SSIM+0.4*PCL", "--vgg_weights", weights / FILES["vgg16"])
    assert status == 0, text
    assert re.search(r"epoch 2/2: loss \S+, SSIM \S+, PCL ", text)
    assert run(*TINY, "--reset", "--loss", "1*PCL", "--vgg", "19", "--vgg_weights", weights / FILES["vgg19"])[0] == 0


@pytest.mark.parametrize("content, words", [
    ("vgg19", "file.pth does not contain the weights of vgg16: 'features.17.weight' is missing or has another shape; "
     "torchvision's keys are required, and --vgg is the depth of the VGG in a --vgg_weights file"),
    ("alexnet", "file.pth does not contain the weights of vgg16: 'features.0.weight' is missing or has another shape"),
    (b"hello", "file.pth is damaged or is not a file of weights"),
    (None, "the file file.pth does not exist; a file of weights (.pt, .pth, .safetensors) is required"),
])
def test_wrong_vgg_weights(fails, weights, pairs, offline, content, words):
    if content:
        Path("file.pth").write_bytes(content if isinstance(content, bytes) else (weights / FILES[content]).read_bytes())
    assert words in fails(*TINY, "--loss", "1*PCL", "--vgg_weights", "file.pth")
    assert not Path("experiment/x").exists()


def test_weights_dir(run, weights, package, pairs, offline):
    """SAPNet's whole recipe runs with weights from a directory."""
    status, text = run(*TINY, "--weights_dir", weights)
    assert status == 0, text
    assert re.search(r"epoch 1/2: loss \S+, SSIM \S+, PCL \S+, LPISL \S+, l", text)
    assert re.search(r"epoch 2/2: loss \S+, SSIM \S+, PCL \S+, LPISL \S+, UBS \S+, l", text)


@pytest.mark.parametrize("spec, name", [("1*PCL", "vgg16"), ("1*SCR", "vgg19"), ("1*UBS", "resnet101"), ("1*LPISL", "alexnet")])
def test_weights_dir_without_the_file(fails, package, pairs, offline, spec, name):
    Path("some").mkdir()
    sentence = fails(*TINY, "--loss", f"1*L1+{spec}", "--weights_dir", "some")
    assert f"the loss {spec[2:]} needs {FILES[name]}, which --weights_dir some does not contain" in sentence
    assert f"download it from https://download.pytorch.org/models/{FILES[name]} into that directory; without: --loss '1*L1'" in sentence
    Path("some", FILES[name]).write_bytes(b"")
    assert f"{FILES[name]} is damaged" in fails(*TINY, "--loss", spec, "--weights_dir", "some")
    torch.save({"features.0.weight": torch.zeros(1)}, Path("some", FILES[name]))
    assert f"{name} does not contain the weights of {name}" in fails(*TINY, "--loss", spec, "--weights_dir", "some")
    assert not Path("experiment/x").exists()


def test_no_network(fails, run, pairs, offline, tmp_path):
    """The message states the file, its address and its directory; the --loss that it proposes trains; a test needs no weights."""
    sentence = fails(*TINY, "--no-use_lpis")
    assert ("the loss PCL needs torchvision's ImageNet weights vgg16-397923af.pth, which could not be downloaded (no route to host); "
            "download them from https://download.pytorch.org/models/vgg16-397923af.pth") in sentence
    assert (f"into {tmp_path / 'hub'}/hub/checkpoints, or specify their directory with --weights_dir, or the file with --vgg_weights; "
            "without: --loss") in sentence
    assert not Path("experiment/x").exists()
    proposed = re.search(r"without: --loss '(.*)'$", sentence)[1]
    assert proposed == "1*SSIM / 1*SSIM"
    status, text = run(*TINY, "--loss", proposed)
    assert status == 0 and "epoch 2/2: loss" in text, text
    torch.save(SAPNet(16, 1).state_dict(), "network.pth")
    assert run(*TINY, "--save", "y", "--test_only", "--pre_train", "network.pth")[0] == 0


def test_a_download(weights, monkeypatch, tmp_path):
    """Torchvision downloads a missing file; an existing file is read, and a damaged one is an error."""
    def give(self, **options):
        asked.append((self.url.rpartition("/")[2], options["check_hash"], options["weights_only"]))
        return torch.load(weights / FILES["vgg16"], weights_only=True)
    asked = []
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", give)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert make("1*PCL", "").terms[0].vgg.features[0].weight.dtype is torch.float32
    assert asked == [(FILES["vgg16"], True, True)]
    pretrained._vgg.cache_clear()
    Path(tmp_path, "hub/checkpoints").mkdir(parents=True)
    Path(tmp_path, "hub/checkpoints", FILES["vgg16"]).write_bytes(b"")
    with pytest.raises(UserError, match=r"vgg16-397923af\.pth is damaged"):
        make("1*PCL", "")


def test_without_the_package_lpips(fails, weights, pairs, offline, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    sentence = fails(*TINY, "--weights_dir", weights)
    assert ("the loss LPISL needs the package lpips: pip install lpips; "
            "without: --loss '1*SSIM+0.4*PCL / 1*SSIM+0.4*PCL+0.1*UBS'") in sentence
    assert not Path("experiment/x").exists()
