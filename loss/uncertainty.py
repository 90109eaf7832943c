"""A loss that lets the network say where it is unsure."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from contract import Batch, Prediction
from loss.pixel import pick


def uncertainty(prediction: str, target: str, args, scale: str = "log_scale", weight: float = 2.0) -> Callable:
    """Mean of |e^-s · (restored - clean)| + weight · s, s the map named by scale of each restored image, mean over stages (DSRIR)."""
    def term(output: Prediction, batch: Batch) -> Tensor:
        restored, log_scale = pick(prediction, output), pick(scale, output)
        clean = pick(target, batch.targets, output)
        if isinstance(restored, Tensor):
            restored, log_scale = [restored], [log_scale]
        return sum(weighted(image, s, clean, weight) for image, s in zip(restored, log_scale)) / len(restored)
    return term


def weighted(restored: Tensor, log_scale: Tensor, clean: Tensor, weight: float = 2.0) -> Tensor:
    """Return the loss of one scale for (B, C, H, W), in float32."""
    scale = log_scale.float()
    return (torch.exp(-scale) * (restored.float() - clean.float())).abs().mean() + weight * scale.mean()
