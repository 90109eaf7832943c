"""Losses on features, computed by several processes together."""
import os
import socket
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from contract import Batch
from runtime import process
from tests.test_perceptual import make, sample, weights  # noqa: F401


def share(rank: int, world: int, place: str) -> dict[str, tuple[float, Tensor]]:
    """The value of each term and the gradient of a small network, in one of the processes that divide a batch of four."""
    part, results = slice(4 * rank // world, 4 * (rank + 1) // world), {}
    with process.session(cpu=True, n_gpus=1):
        x, truth = (value.detach()[part] for value in (sample(4)[1].input, sample(4)[1].targets["image"]))
        network = nn.Conv2d(3, 3, 3, padding=1)
        with torch.no_grad():
            network.weight.copy_(torch.linspace(-0.3, 0.5, 81).view(3, 3, 3, 3))
            network.bias.zero_()
        for name in ("SCR", "HCR"):
            total, _ = make(f"1*{name}", Path(place))({"image": network(x)}, Batch([""] * len(x), x, {"image": truth}, x))
            gradient, = torch.autograd.grad(total, network.weight)
            results[name] = (total.item(), process.mean(gradient))
        if rank == 0 and world > 1:
            torch.save(results, Path(place) / "shared.pt")
    return results


def one_of_two(rank: int, port: int, place: str) -> None:
    """A process that ends in the same way as the processes of main.py."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    process.leave(lambda: int(not share(rank, 2, place)))


def test_two_processes_equal_one(weights):  # noqa: F811
    """Two processes give the same loss and gradient as one, up to float32 rounding.

    The network has sixteen convolutions that sum up to 4608 products each, with other kernels for a batch of 2 than of 4.
    The relative error of a sum of n products is about sqrt(n) * 6e-8, here 4e-6, and sixteen layers add up to 6e-5. The value
    is a mean over many features, whose errors cancel. The gradient passes through the layers twice, and through |x|, whose
    slope jumps where rounding decides the sign of x: several times 6e-5. A term with the mean of the processes'
    ratios, instead of the ratio of their means, has an error of 3e-4 in the value and of 2e-2 in the gradient.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(one_of_two, (port, str(weights)), nprocs=2)
    one, two = share(0, 1, str(weights)), torch.load(weights / "shared.pt", weights_only=True)
    for name in ("SCR", "HCR"):
        assert two[name][0] == pytest.approx(one[name][0], rel=3e-5)
        assert (two[name][1] - one[name][1]).norm() <= 5e-4 * one[name][1].norm()
