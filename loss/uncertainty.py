"""A loss with a map of the network's uncertainty, which the network predicts itself."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from contract import Batch, Prediction
from loss.pixel import added, pick, pick_one


def uncertainty(prediction: str, target: str, args, scale: str = "log_scale", weight: float = 2.0) -> Callable:
    """Mean of |e^-s · (restored - clean)| + weight · s; s is the map named `scale` of each restored image; mean over stages (DSRIR)."""
    def term(output: Prediction, batch: Batch) -> Tensor:
        restored, log_scale = pick(prediction, output), pick(scale, output)
        clean = pick_one(target, batch.targets, output)
        images = [restored] if isinstance(restored, Tensor) else restored
        scales = [log_scale] if isinstance(log_scale, Tensor) else log_scale
        return added(weighted(image, s, clean, weight) for image, s in zip(images, scales)) / len(images)
    return term


def weighted(restored: Tensor, log_scale: Tensor, clean: Tensor, weight: float = 2.0) -> Tensor:
    """Return the loss of one restored image (B, C, H, W) and its log-scale map, computed in float32."""
    scale = log_scale.float()
    return (torch.exp(-scale) * (restored.float() - clean.float())).abs().mean() + weight * scale.mean()
