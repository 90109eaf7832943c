"""Decides whether a network's output may be used for an image: it must agree with the references as they agree with each other."""
import numpy as np
import torch

from model.rain2avoid.nss import Drawn

USED = 10                                 # number of references from which their spread is computed


def spread(drawn: Drawn) -> float:
    """Return the RMS difference, in levels, between a reference and the mean of all references over the rain pixels; 0 without any."""
    if not len(drawn.positions):
        return 0.0
    everywhere = torch.arange(len(drawn.positions), device=drawn.positions.device)
    mean = drawn.fused().view(-1, 3)[drawn.positions].float()
    numbers = torch.linspace(0, len(drawn) - 1, min(USED, len(drawn))).long()
    squares = [(drawn.colours(number[None], everywhere) - mean).square().mean() for number in numbers]
    return float(torch.stack(squares).mean().sqrt())


def distance(network: np.ndarray, fused: np.ndarray, rain: np.ndarray) -> float:
    """Return the RMS difference, in levels, between the network's output and the mean reference over the rain pixels (H, W) bool."""
    difference = network[rain].astype(np.float32) - fused[rain]
    return float(np.sqrt(np.square(difference).mean())) if difference.size else 0.0


def refusal(network: np.ndarray, fused: np.ndarray, rain: np.ndarray, limit: float) -> str:
    """Return why the network's output must not be used, '' if it may: it differs from the mean reference by more than `limit` levels.

    `limit` is the spread of the references, 0 if there are none. Images are (H, W, 3) uint8.
    """
    found = distance(network, fused, rain)
    if not limit or found <= limit:
        return ""
    return (f"the network's output differs from the mean of its references by {found:.1f} levels, more than the references differ "
            f"among themselves ({limit:.1f}); the mean of the references is the result")
