"""Learned perceptual similarity as a loss; needs the optional package lpips."""
from __future__ import annotations

import contextlib
import io

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contract import Batch, Prediction
from loss import pretrained
from loss.pixel import pick_one
from runtime.errors import UserError


def lpisl(prediction: str, target: str, args, side: int = 256) -> nn.Module:
    """LPIPS (AlexNet) between inverted, min-max-normalised images of side × side pixels (SAPNet); needs the package lpips."""
    if not 32 <= side <= 4096:
        raise UserError(f"--loss: the parameter side of LPISL must be from 32 to 4096, not {side}")
    try:
        import lpips
    except ImportError as error:
        raise pretrained.Missing("the package lpips: pip install lpips") from error
    weights = pretrained.alexnet(args)
    with contextlib.redirect_stdout(io.StringIO()), torch.random.fork_rng(devices=[]):            # prints a line, draws random numbers
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    body = network.net.state_dict()                               # its layers have torchvision's numbers: slice2.3 is features.3
    network.net.load_state_dict({key: weights["features." + key.partition(".")[2]].float() for key in body})
    return Similarity(network.requires_grad_(False).eval(), prediction, target, side)


class Similarity(nn.Module):
    """The mean LPIPS distance of a batch, computed in float32."""

    def __init__(self, network: nn.Module, prediction: str, target: str, side: int = 256):
        super().__init__()
        self.network, self.prediction, self.target, self.side = network, prediction, target, side

    def forward(self, prediction: Prediction, batch: Batch) -> Tensor:
        """Return the distance of the named images, (B, 3, H, W) in [0, 1] of any size."""
        output, target = pick_one(self.prediction, prediction), pick_one(self.target, batch.targets, prediction)
        with torch.autocast(output.device.type, enabled=False):
            return self.network(inverted(output, self.side), inverted(target.detach(), self.side), normalize=True).mean()


def inverted(x: Tensor, side: int = 256) -> Tensor:
    """Return 1 - x for x scaled to [0, 1] by the minimum and maximum of each image, resized bilinearly to side × side."""
    x = x.float()
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return F.interpolate(1 - (x - low) / (high - low).clamp_min(1e-6), (side, side), mode="bilinear", align_corners=False)
