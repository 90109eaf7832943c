"""Loss specifications, values of the terms, and their gradients."""
import inspect
import json
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

import loss
from contract import Batch
from loss import contrast, pixel, pretrained, segmentation, ssim, terms, uncertainty
from runtime.errors import UserError
from tests.parity import facts, picture, released_state

X = torch.tensor([0.0, 0.5]).view(1, 1, 1, 2)
BATCH = Batch(["a"], X, {"image": X + 0.25, "mask": X}, torch.tensor([0]))
PREDICTION = {"image": X, "mask": X + 1, "teacher_image": X + 2, "steps": [X + 3, X + 4]}
ARGS = Namespace(vgg=0, vgg_weights="", weights_dir="", num_of_SegClass=21)
SEED = facts("losses")["seed"]
GOLDEN = facts("losses")["values"]


@pytest.mark.parametrize("spec, total, names", [
    ("1*L1", 0.25, ["L1"]),
    ("2*MSE", 0.125, ["MSE"]),
    ("1*Charbonnier", (0.25**2 + 1e-6) ** 0.5, ["Charbonnier"]),
    ("1*L1+0.5*L1:mask", 0.75, ["L1", "L1:mask"]),
    ("1*L1:image:mask", 0.0, ["L1:mask"]),
    ("1*L1:image:teacher_image", 2.0, ["L1:teacher_image"]),       # a target that the method computes itself
    ("1*L1:steps:mask", 7.0, ["L1:steps:mask"]),                   # the sum over a list
    ("1*L1:steps.0:mask", 3.0, ["L1:steps.0:mask"]),
    ("1*L1:mask:steps.1", 3.0, ["L1:mask:steps.1"]),
])
def test_terms(spec, total, names):
    value, parts = loss.Loss(spec)(PREDICTION, BATCH)
    assert value.item() == pytest.approx(total)
    assert list(parts) == names


@pytest.mark.parametrize("spec, total, names", [
    ("1*Charbonnier(eps=0.5)", (0.25**2 + 0.25) ** 0.5, ["Charbonnier"]),
    ("1*Charbonnier ( eps = 5e-1 ) : mask", (1 + 0.25) ** 0.5, ["Charbonnier:mask"]),
    ("1*Charbonnier(eps=1e+0)+1e+0*L1", (0.25**2 + 1) ** 0.5 + 0.25, ["Charbonnier", "L1"]),
    ("1E+0*L1 + 1*Charbonnier(eps=5E-1):image:mask", 0.25 + 0.5, ["L1", "Charbonnier:mask"]),
    ("1*Charbonnier()", (0.25**2 + 1e-6) ** 0.5, ["Charbonnier"]),
    ("2*L1+1*L1+1*L1:mask+1*L1:mask", 2.75, ["L1", "L1#2", "L1:mask", "L1:mask#2"]),
])
def test_parameters(spec, total, names):
    value, parts = loss.Loss(spec)(PREDICTION, BATCH)
    assert value.item() == pytest.approx(total)
    assert list(parts) == names


def test_defaults_give_what_they_gave_before():
    """The values equal those with the constants of version 0.1.0, bit for bit."""
    torch.manual_seed(0)
    a, b = torch.rand(2, 3, 33, 20), torch.rand(2, 3, 33, 20)
    batch = Batch(["a", "b"], a, {"image": b}, torch.zeros(2))
    scale = torch.randn(2, 3, 33, 20)
    found = {name: loss.Loss(f"1*{name}")({"image": a, "log_scale": scale}, batch)[0]
             for name in ("Charbonnier", "PSNR", "SSIM", "Uncertainty")}
    assert torch.equal(found["Charbonnier"], torch.sqrt((a - b) ** 2 + 1e-6).mean())
    assert torch.equal(found["PSNR"], 10 / np.log(10) * ((a - b) ** 2).mean((1, 2, 3)).add(1e-8).log().mean())
    assert torch.equal(found["Uncertainty"], (torch.exp(-scale) * (a - b)).abs().mean() + 2 * scale.mean())
    assert torch.equal(found["SSIM"], 1 - ssim.similarity(a, b, 11, 1.5))


def test_a_window_of_one_pixel():
    """SSIM uses its parameters: with a window of one pixel the variances are zero, and only the means remain."""
    value, _ = loss.Loss("1*SSIM(window=1, sigma=2)")({"image": X}, Batch(["a"], X, {"image": X + 0.25}, torch.zeros(1)))
    expected = [(2 * a * b + ssim.C1) / (a * a + b * b + ssim.C1) for a, b in ((0, 0.25), (0.5, 0.75))]
    assert value.item() == pytest.approx(1 - sum(expected) / 2, rel=1e-5)


def example(prediction: str, target: str, args, sharp: bool = False, count: int = 2, by: str = "mask"):
    """A term with a parameter of each kind."""
    return lambda output, batch: torch.tensor(float(sharp)) + 10 * count + 100 * len(by)


@pytest.mark.parametrize("given, total", [("", 420), ("(sharp=true)", 421), ("(sharp=False, count=3)", 430), ("(by=a_b.1, count=-1)", 490)])
def test_each_kind_of_parameter(monkeypatch, given, total):
    monkeypatch.setitem(loss.TERMS, "Example", example)
    assert loss.Loss(f"1*Example{given}")({}, BATCH)[0].item() == total
    assert loss.described("Example") == "sharp=false, count=2, by=mask"


KNOWN = "its parameters and their defaults: "


@pytest.mark.parametrize("spec, words", [
    ("1*Charbonnier(delta=1)", f"Charbonnier has no parameter 'delta'; {KNOWN}eps=0.001"),
    ("1*Charbonnier(eps=small)", f"the parameter eps of Charbonnier must be a number, not 'small'; {KNOWN}eps=0.001"),
    ("1*Charbonnier(eps=nan)", "the parameter eps of Charbonnier must be a number, not 'nan'"),
    ("1*Charbonnier(eps=)", "the parameter eps of Charbonnier must be a number, not ''"),
    ("1*Charbonnier(1e-3)", f"'1e-3' is not parameter=value; {KNOWN}eps=0.001"),
    ("1*Charbonnier(eps=1,)", "'' is not parameter=value"),
    ("1*Charbonnier(eps=1, eps=2)", "'eps' is given twice"),
    ("1*Charbonnier(eps=1e-3", f"the brackets of '1*Charbonnier(eps=1e-3' are not balanced; {KNOWN}eps=0.001"),
    ("1*Charbonnier(eps=1e-3+1*L1", "the brackets of '1*Charbonnier(eps=1e-3+1*L1' are not balanced"),
    ("1*Charbonnier eps=1)", "'1*Charbonnier eps=1)' is not weight*Type"),
    ("1*Charbonnier(eps=(1))", "are not balanced"),
    ("1*SSIM(window=5.5)", f"the parameter window of SSIM must be a whole number, not '5.5'; {KNOWN}window=11, sigma=1.5"),
    ("1*Uncertainty(scale=3)", f"the parameter scale of Uncertainty must be a name, not '3'; {KNOWN}scale=log_scale, weight=2.0"),
    ("1*L1(eps=1)", "L1 has no parameter 'eps'; L1 has no parameters"),
    ("1*L1)+1*L1", "--loss '1*L1)+1*L1': "),
    ("1*L1:mask(eps=1)", "is not weight*Type"),
])
def test_parameters_that_cannot_be(spec, words):
    with pytest.raises(UserError) as error:
        loss.parse(spec)
    assert words in str(error.value)


@pytest.mark.parametrize("spec, words", [
    ("1*Charbonnier(eps=0)", "eps of Charbonnier must be positive, not 0"),
    ("1*PSNR(eps=-1)", "eps of PSNR must be positive, not -1"),
    ("1*SSIM(window=4)", "an odd window from 1 to 99 and a positive sigma, not window=4, sigma=1.5"),
    ("1*SSIM(sigma=0)", "not window=11, sigma=0"),
    ("1*LPISL(side=8)", "side of LPISL must be from 32 to 4096, not 8"),
])
def test_values_that_cannot_be(spec, words):
    with pytest.raises(UserError, match=re.escape(words)):
        loss.Loss(spec)


def test_every_parameter_has_a_default():
    """The default's type is the type of the value in a specification; the first three arguments of all terms are equal."""
    for name, make in loss.TERMS.items():
        assert list(inspect.signature(make).parameters)[:3] == ["prediction", "target", "args"], name
        assert all(type(value) in (bool, int, float, str) for value in terms.parameters(name).values()), name
        assert make.__doc__, name


def test_parts_are_unweighted():
    _, parts = loss.Loss("3*L1+5*L1:mask")(PREDICTION, BATCH)
    assert [round(float(value), 6) for value in parts.values()] == [0.25, 1.0]


@pytest.mark.parametrize("spec, words", [
    ("1*L1:image:wide", "'image' of the shape (1, 1, 1, 2) with 'wide' of the shape (1, 1, 2, 3)"),
    ("1*FFT:image:wide", "their sizes and channels must agree"),
    ("1*L1:steps:three", "'steps', a list of 2 tensors, with 'three', a list of 3"),
])
def test_tensors_that_cannot_be_compared(spec, words):
    with pytest.raises(UserError, match=re.escape(words)):
        loss.Loss(spec)(PREDICTION | {"wide": torch.ones(1, 1, 2, 3), "three": [X] * 3}, BATCH)


def test_unknown_names():
    with pytest.raises(UserError, match="--loss names 'depth', which does not exist; the model predicts: image, mask"):
        loss.Loss("1*L1:depth")(PREDICTION, BATCH)


def test_a_target_that_does_not_exist():
    with pytest.raises(UserError, match=r"'depth', which does not exist; the model predicts: image, mask, .* targets: image, mask$"):
        loss.Loss("1*L1:image:depth")(PREDICTION, BATCH)


@pytest.mark.parametrize("make, text", [
    (lambda prediction, target, args: None, "the function of the loss Own must return a function .*, but it returned None"),
    (lambda prediction, target, args: lambda output, batch: output["image"], "the loss Own must return .*, but it returned a tensor of"),
    (lambda prediction, target, args: lambda output, batch: 0.5, "the loss Own must return .*, but it returned 0.5"),
    (lambda prediction, target, args, step: None, "the parameter step of the loss Own needs a default"),
    (lambda prediction, target, args, step=(1, 2): None, "the parameter step of the loss Own needs a default"),
])
def test_a_term_that_is_written_wrongly(monkeypatch, make, text):
    monkeypatch.setitem(terms.TERMS, "Own", make)
    with pytest.raises(UserError, match=text):
        loss.Loss("1*Own")(PREDICTION, BATCH)


@pytest.mark.parametrize("key", ["steps.2", "steps.-1", "steps.x", "mask.0"])
def test_members_that_are_not_there(key):
    with pytest.raises(UserError, match=re.escape(f"--loss names '{key}', but '{key.partition('.')[0]}' has no element of that number")):
        loss.Loss(f"1*L1:{key}:image")(PREDICTION, BATCH)


def test_a_member_that_is_not_there_is_said_at_once(fails, pairs):
    sentence = fails("--model", "sapnet", "--data_train", "set", "--save", "x", "--channels", "16", "--recurrent_iter", "2",
                     "--loss", "1*L1:steps.2:image", "--patch_size", "32", "--batch_size", "2", "--n_threads", "0", "--cpu")
    assert "--loss names 'steps.2', but 'steps' has no element of that number" in sentence
    assert not Path("experiment/x").exists()


def test_without_a_target():
    assert loss.targets("1*L1+1*L1:mask") == {"image", "mask"}
    assert loss.without("1*L1+1*L1:mask", "mask") == "1*L1"
    assert loss.without("1*L1:mask", "mask") == "1*L1"


def test_without_types():
    assert loss.without_types("1*SSIM(window=7, sigma=1e+0)+1*L1", {"L1"}) == "1*SSIM(window=7, sigma=1e+0)"
    assert loss.without("1*L1+1*Charbonnier(eps=1):mask", "mask") == "1*L1"
    assert loss.without_types("1*SSIM + 1e+0*PCL+0.1*UBS", {"PCL", "UBS"}) == "1*SSIM"
    assert loss.without_types("0.4*PCL", {"PCL"}) == "1*L1"


def test_a_psnr_is_listed_in_decibels():
    values = {"loss": -20.0, "PSNR": -23.456, "PSNR:restored.1": -20.0, "PSNR#2": -1.0, "L1": 0.5}
    assert loss.listed(values) == "loss -20, PSNR -23.456 (23.46 dB), PSNR:restored.1 -20 (20.00 dB), PSNR#2 -1 (1.00 dB), L1 0.5"


def test_a_negative_loss_trains_on(run, pairs):
    """Minus a PSNR alone: no step of the second epoch exceeds --skip_threshold, and the log shows dB."""
    status, text = run("--model", "dsrir", "--channels", "16", "--loss", "1*PSNR", "--epochs", "2", "--test_every", "2", "--no-audit",
                       "--data_train", "set", "--data_test", "set", "--data_range", "1-4/4-4", "--val_epochs", "2",
                       "--epoch_chg", "2", "--warmup", "0", "--batch_size", "2", "--patch_size", "32", "--n_threads", "0",
                       "--cpu", "--save", "x")
    assert status == 0, text
    assert "is skipped" not in text and re.search(r"epoch 2/2: loss -\S+, PSNR -\S+ \(\d+\.\d\d dB\)", text)
    epochs = [r for line in Path("experiment/x/log.jsonl").read_text().splitlines() if (r := json.loads(line))["event"] == "epoch"]
    assert [r["losses"]["loss"] < 0 for r in epochs] == [True, True]
    assert torch.load("experiment/x/model/state.pt", weights_only=True)["progress"]["steps"] == 4


def pictures(shift: int) -> torch.Tensor:
    """Three images of the parity rule, the first by the seed SEED + shift."""
    return torch.cat([picture({"seed": SEED + shift + number, "height": 64, "width": 64}) for number in range(3)])


def by_the_rule(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights by the parity rule for the keys and shapes of a state_dict."""
    return released_state({"seed": SEED, "state_dict": [(key, list(value.shape)) for key, value in state.items()]})


@pytest.fixture(scope="module")
def ruled():
    """VGG with the rule's weights, within this module."""
    def weights(name: str, file: str, folder: str) -> dict[str, torch.Tensor]:
        with torch.device("meta"):
            return by_the_rule(pretrained.VGG(int(name.removeprefix("vgg"))).state_dict())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "_weights", weights)
        pretrained._vgg.cache_clear()
        yield
        pretrained._vgg.cache_clear()


@pytest.fixture(scope="module")
def logits() -> torch.Tensor:
    """Output of the segmentation network with the rule's weights for the first three images."""
    from torchvision import models
    with torch.device("meta"):
        network = segmentation.Segmentation(models.resnet101())
    network.load_state_dict(by_the_rule(network.state_dict()), assign=True)
    with torch.inference_mode():
        return network.eval()(pictures(0))


@pytest.mark.parametrize("name, make", [
    ("twostage.SCR(a,p,n)", contrast.scr),
    ("twostage.HCR(a,p,n)", contrast.hcr),
    ("dsrir.PositiveContrast(a,p,p1,p2,n)", contrast.pocl),
    ("sapnet.Contrast(a,p,n)", contrast.pcl),
    ("dsrir.PSNRLoss(p,a)", pixel.psnr),
])
def test_golden_values(ruled, name, make):
    image = pictures(0)
    prediction = {"image": image, "restored": [image, pictures(30), pictures(40)]}
    batch = Batch(["a", "b", "c"], pictures(20), {"image": pictures(10)}, torch.zeros(3))
    with torch.no_grad():
        assert make("image", "image", ARGS)(prediction, batch).item() == pytest.approx(GOLDEN[name], rel=1e-4)


def test_golden_values_without_a_network(logits):
    a, p, v = pictures(0), pictures(10), 2 * pictures(50) - 0.5
    batch = Batch(["a", "b", "c"], a, {"image": p}, torch.zeros(3))
    for restored, scale in ((a, v), ([a, a], [v, v])):              # the mean over stages
        value = uncertainty.uncertainty("restored", "image", ARGS)({"restored": restored, "log_scale": scale}, batch)
        assert value.item() == pytest.approx(GOLDEN["dsrir.Uncertainty(target=p,restored=a,s=v)"], rel=1e-4)
    value = ssim.ssim("image", "image", ARGS)({"image": a}, batch)
    assert 1 - value.item() == pytest.approx(GOLDEN["sapnet.SSIM(p,a)"], rel=1e-4)
    random = torch.from_numpy(np.random.RandomState(SEED).standard_normal((2, 21, 16, 16)))
    assert segmentation.focal(random).item() == pytest.approx(GOLDEN["sapnet.FocalOnLogits"], rel=1e-4)
    assert segmentation.focal(logits).item() == pytest.approx(GOLDEN["sapnet.SegFocal(UBS(a))"], rel=1e-4)


def test_equals_the_released_segmentation(logits, parity):
    theirs = np.load(parity / "sapnet_ubs.npz")["logits"]
    assert logits.shape == theirs.shape and np.linalg.norm(logits.numpy() - theirs) / np.linalg.norm(theirs) < 1e-4


@pytest.mark.parametrize("others", [1, 3, 5])
def test_all_pairs(others):
    """Value and gradient of the mean over all pairs equal those of the tensor of all pairs; b gets no gradient."""
    torch.manual_seed(0)
    a, b = torch.randn(3, 4, 5, 6, requires_grad=True), torch.randn(others, 4, 5, 6, requires_grad=True)
    naive = (a[:, None] - b.detach()[None]).abs().mean()
    ours = contrast.AllPairs.apply(a, b)
    expected, = torch.autograd.grad(naive**2, a)
    found, none = torch.autograd.grad(ours**2, (a, b), allow_unused=True)
    torch.testing.assert_close(ours, naive)
    torch.testing.assert_close(found, expected)
    assert none is None
