"""Parts of today's recipes: the learning rate's schedules, clipping of the gradient's norm, the losses FFT and MSSSIM."""
import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

import loss
import option
import utility
from contract import Batch
from loss import ssim
from runtime.errors import UserError
from tests.conftest import TINY

SCHEDULE = dict(lr=1.0, lr_min=0.1, warmup=2.0, hold=6.0, epochs=10, decay=[5], gamma=0.5)


@pytest.mark.parametrize("schedule, rates", [
    ("step", {0: 0, 1: 0.5, 2: 1, 4.9: 1, 5: 0.5, 9: 0.5}),
    ("cosine", {1: 0.5, 2: 1, 6: 0.55, 10: 0.1}),
    ("hold_cosine", {1: 0.5, 2: 1, 5.9: 1, 6: 1, 8: 0.55, 10: 0.1}),
])
def test_schedules(schedule, rates):
    args = Namespace(**SCHEDULE, schedule=schedule)
    for progress, rate in rates.items():
        assert utility.learning_rate(args, progress) == pytest.approx(rate), progress


def test_hold_follows_the_number_of_epochs(place):
    args = option.parse(["--schedule", "hold_cosine", "--hold", "92"])
    assert (args.hold, args.epochs) == (92, 300)
    Path("args.json").write_text(json.dumps({"hold": 92.0, "epochs": 300, "warmup": 3.0}))
    args = option.parse(["--config", "args.json", "--epochs", "30"])
    assert (args.hold, args.warmup) == pytest.approx((9.2, 0.3))
    assert args.origin["hold"] == "typed, follows from --epochs"


def test_the_norm_of_the_gradient_is_clipped(run, pairs):
    """With SGD of rate 1 without momentum the first step is the clipped gradient."""
    common = ("--data_train", "set", "--optimizer", "SGD", "--momentum", "0", "--lr", "1", "--test_every", "1", *TINY[:2], *TINY[6:])
    for name, flags in (("a", ("--lr", "0")), ("b", ("--gclip_norm", "0.001"))):
        assert run("--save", name, *common, "--epochs", "1", *flags)[0] == 0
    before, after = (torch.load(f"experiment/{name}/model/state.pt", weights_only=True)["network"] for name in "ab")
    step = torch.cat([(after[key] - before[key]).flatten() for key in before])
    assert step.norm().item() == pytest.approx(0.001, rel=1e-2)


A, B = torch.rand(2, 2, 3, 64, 48, generator=torch.Generator().manual_seed(1)).unbind()


def value(spec: str, a: torch.Tensor = A, b: torch.Tensor = B) -> float:
    return loss.Loss(spec)({"image": a}, Batch(["a"], a, {"image": b}, torch.tensor([0])))[0].item()


@pytest.mark.parametrize("spec, norm", [("1*FFT", "ortho"), ("1*FFT(ortho=true)", "ortho"), ("1*FFT(ortho=false)", "backward")])
def test_fft(spec, norm):
    difference = np.fft.fft2(A.double().numpy(), norm=norm) - np.fft.fft2(B.double().numpy(), norm=norm)
    assert value(spec) == pytest.approx((np.abs(difference.real).mean() + np.abs(difference.imag).mean()) / 2, rel=1e-5)


@pytest.mark.parametrize("scales", [1, 3])
def test_ms_ssim(scales):
    """MS-SSIM equals one computed with SciPy in double precision."""
    a, b = (0.8 * A + 0.1).double().numpy(), (0.8 * A + 0.1 + 0.05 * B).double().numpy()
    kernel = np.exp(-(np.arange(11) - 5)**2 / 4.5)
    kernel /= kernel.sum()

    def blur(x):
        x = ndimage.convolve1d(ndimage.convolve1d(x, kernel, axis=2), kernel, axis=3)
        return x[:, :, 5:-5, 5:-5]

    product, first = 1.0, (a, b)
    for number, exponent in enumerate(np.array(ssim.SCALES[:scales]) / sum(ssim.SCALES[:scales])):
        ma, mb = blur(a), blur(b)
        va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
        structure = (2 * cov + 9e-4) / (va + vb + 9e-4)
        luminance = (2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4)
        product = product * (structure * luminance if number == scales - 1 else structure).mean((2, 3)) ** exponent
        a, b = (x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).mean((3, 5)) for x in (a, b))
    found = value(f"1*MSSSIM(scales={scales})", *(torch.from_numpy(x).float() for x in first))
    assert 1 - found == pytest.approx(product.mean(), abs=1e-5)


def test_ms_ssim_has_a_finite_gradient_for_opposite_images():
    a = A.clone().requires_grad_()
    loss.Loss("1*MSSSIM(scales=2)")({"image": a}, Batch(["a"], a, {"image": 1 - A}, torch.tensor([0])))[0].backward()
    assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize("spec, message", [
    ("1*MSSSIM", "needs patches of at least 176 pixels, not 48"),
    ("1*MSSSIM(scales=6)", "needs 1 to 5 scales"),
    ("1*MSSSIM(window=4)", "an odd window"),
])
def test_ms_ssim_says_what_it_needs(spec, message):
    with pytest.raises(UserError, match=message):
        value(spec)


def test_a_paper_schedule_in_stages(place):
    """Restormer's recipe: six stages of larger crops and smaller batches, a rate that is held for 92,000 of 300,000 steps."""
    args = option.parse(["--template", "restormer_paper", "--data_train", "mine", "--epochs", "30"])
    assert [stage.patch_size for stage in args.stages] == [128, 160, 192, 256, 320, 384]
    assert [stage.epochs for stage in args.stages] == [9, 7, 4, 4, 4, 2]
    assert [round(utility.learning_rate(args, epoch), 7) for epoch in (0, 9.2, 30)] == [3e-4, 3e-4, 1e-6]
