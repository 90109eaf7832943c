"""Small helpers: means, seeds, learning rate schedule."""
import contextlib
import math
import random

import numpy as np
import torch


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of every key over rows that have the same keys."""
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]} if rows else {}


def seed_everything(seed: int, deterministic: bool = True) -> None:
    """Seed Python, NumPy and PyTorch; `deterministic`: choose GPU convolutions that give equal bits in each run, else the fastest."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic


def learning_rate(args, progress: float) -> float:
    """Return the learning rate at a point of the training; `progress` is in epochs, from 0.

    The rate rises linearly from 0 during --warmup epochs. Then --schedule `step` multiplies it by --gamma at each epoch
    of --decay, `cosine` lowers it to --lr_min at the last epoch, and `hold_cosine` does so after the first --hold epochs.
    """
    if progress < args.warmup:
        return args.lr * progress / args.warmup
    if args.schedule == "step":
        return args.lr * args.gamma ** sum(progress >= epoch for epoch in args.decay)
    start = max(args.warmup, args.hold if args.schedule == "hold_cosine" else 0)
    done = (progress - start) / max(args.epochs - start, 1e-9)
    return args.lr_min + (args.lr - args.lr_min) * 0.5 * (1 + math.cos(math.pi * min(max(done, 0), 1)))


@contextlib.contextmanager
def replaced(method, network: torch.nn.Module | None):
    """Replace the network of a method by another one, if there is one, within the block."""
    trained = method.network
    method.network = network or trained
    try:
        yield
    finally:
        method.network = trained


def has_plateaued(losses: list[float], count: int) -> bool:
    """Return whether the mean of the last `count` losses is less than 1 % below that of the `count` losses before them; 0: never."""
    last, before = sum(losses[-count:]), sum(losses[-2 * count:-count])
    return 0 < 2 * count <= len(losses) and last > before - 0.01 * abs(before)               # a loss may be negative
