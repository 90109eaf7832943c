"""Weights and inputs by the parity fixtures' rule, and the facts about the released networks kept in this folder."""
import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def facts(name: str) -> dict:
    """Return what tests/parity/<name>.json holds: seed, size, released keys with shapes, golden values."""
    return json.loads((Path(__file__).parent / f"{name}.json").read_text())


def released_state(known: dict) -> dict[str, Tensor]:
    """Return a released state_dict filled by the rule: normal values seeded by key, scaled by what they are."""
    return {key: torch.from_numpy(weight(key, shape, known["seed"])) for key, shape in known["state_dict"]}


def weight(key: str, shape: list[int], seed: int) -> np.ndarray:
    """Return the rule's values of one entry, seeded by its key."""
    kind = key.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    z = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32).standard_normal(shape).astype(np.float32)
    if kind == "running_mean":
        values = 0.1 * z
    elif kind == "running_var":
        values = 1 + 0.2 * np.abs(z)
    elif kind == "temperature":
        values = 1 + 0.1 * z
    elif len(shape) > 1:
        values = z * np.sqrt(1 / np.prod(shape[1:]))
    elif kind != "weight":
        values = 0.05 * z
    else:                                 # the slope of a PReLU, or the scale of a norm
        values = (0.25 if z.size == 1 else 1) + 0.1 * z
    return np.asarray(values, np.float32)


def picture(known: dict) -> Tensor:
    """Return the rule's input, (1, 3, H, W) in [0, 1]: six waves a channel and a little noise."""
    rng = np.random.RandomState(known["seed"])
    y, x = np.mgrid[0:known["height"], 0:known["width"]].astype(np.float32)
    waves = np.zeros((3, *x.shape), np.float32)
    for channel in waves:
        for _ in range(6):
            fy, fx, phase = rng.uniform(0.02, 0.3), rng.uniform(0.02, 0.3), rng.uniform(0, 6.28)
            channel += np.sin(fy * y + fx * x + phase)
    levels = 0.5 + waves / 14 + 0.03 * rng.standard_normal(waves.shape)
    return torch.from_numpy(np.clip(levels, 0, 1).astype(np.float32)[None])
