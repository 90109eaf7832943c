"""Contrastive losses on VGG features: for each layer, distance to the target divided by distance to the degraded image.

d is the mean absolute difference over a whole batch and over all processes. Inputs are in [0, 1] without ImageNet
normalisation; the target and the degraded image get no gradient.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from contract import Batch, Prediction
from loss import pretrained
from loss.pixel import added, pick_one
from runtime import process

MCR = dict(relu1_1=1 / 32, relu2_1=1 / 16, relu3_1=1 / 8, relu4_1=1 / 4, relu5_1=1.0)
PCL = dict(relu1_2=1 / 32, relu2_2=1 / 16, relu3_3=1 / 8, relu4_3=1 / 4)


class AllPairs(torch.autograd.Function):
    """Mean |a_i - b_j| over all pairs of (A, ...) and (B, ...), computed without a tensor of A × B; b gets no gradient."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:
        total, slope = torch.zeros((), device=a.device), torch.zeros_like(a)
        for other in b:
            difference = a - other
            total += difference.abs().sum(dtype=torch.float32)
            slope += difference.sign()
        ctx.save_for_backward(slope)
        ctx.pairs = a.numel() * len(b)
        return total / ctx.pairs

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        slope, = ctx.saved_tensors
        return (slope * (gradient / ctx.pairs)).to(slope.dtype), None


class Contrast(nn.Module):
    """Σ over layers of weight · Σ over positives of share · d(output, positive) / (d(output, input) + 1e-7)."""

    def __init__(self, vgg: nn.Module, weights: dict[str, float], prediction: str, target: str, hard: bool = False,
                 earlier: tuple[tuple[str, float], ...] = ()):
        super().__init__()
        self.vgg, self.layers, self.weights, self.hard = vgg, tuple(weights), tuple(weights.values()), hard
        self.prediction, self.target, self.earlier = prediction, target, earlier

    def forward(self, prediction: Prediction, batch: Batch) -> Tensor:
        """Return the loss, a scalar; with `hard` the denominator is the mean over all pairs of outputs and inputs of the batch."""
        output = self.vgg(pick_one(self.prediction, prediction), self.layers)
        with torch.no_grad():
            target = self.vgg(pick_one(self.target, batch.targets, prediction), self.layers)
            degraded = self.vgg(batch.input, self.layers)
        positives = [(target, 1.0)] + [(self.vgg(pick_one(key, prediction), self.layers), share) for key, share in self.earlier]
        parts = []
        for layer, weight in enumerate(self.weights):
            near = added(share * _distance(output[layer], features[layer]) for features, share in positives)
            far = (process.mean_with_own_gradient(AllPairs.apply(output[layer], process.gather_batch(degraded[layer]))) if self.hard
                   else _distance(output[layer], degraded[layer]))
            parts.append(weight * near / (far + 1e-7))
        return added(parts)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return process.mean_with_own_gradient((a.float() - b.float()).abs().mean())


def scr(prediction: str, target: str, args) -> nn.Module:
    """Soft multi-contrastive regularisation on VGG-19 (two-stage knowledge learning, section 3.4)."""
    return Contrast(pretrained.vgg(args, 19), MCR, prediction, target)


def hcr(prediction: str, target: str, args) -> nn.Module:
    """Hard multi-contrastive regularisation on VGG-19: every input of the batch is a negative (section 3.4)."""
    return Contrast(pretrained.vgg(args, 19), MCR, prediction, target, hard=True)


def pcl(prediction: str, target: str, args) -> nn.Module:
    """Perceptual contrastive loss on VGG-16 (SAPNet)."""
    return Contrast(pretrained.vgg(args, 16), PCL, prediction, target)


def pocl(prediction: str, target: str, args) -> nn.Module:
    """Positive-contrast loss on VGG-19: the images of earlier stages (restored.1, restored.2) are positives of lower weight (DSRIR)."""
    return Contrast(pretrained.vgg(args, 19), MCR, prediction, target, earlier=(("restored.1", 0.25), ("restored.2", 0.125)))
