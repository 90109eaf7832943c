"""Measure ways of doing the same work: in turn, round after round, so that another program slows all of them alike."""
import math
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import torch

from runtime import process
from runtime.errors import short

PLAIN = "plain"                           # the way that all others are compared with
EXACT = 1e-3                              # greatest difference from plain, relative to the greatest value of plain, in float32
LEAST = 3                                 # rounds that are measured even if the time is up


class LeftOut(Exception):
    """A way cannot be measured here; the message says why."""


class Way(NamedTuple):
    """One way of doing a work: `start` prepares it and returns the call to measure, whose result is compared with that of plain.

    limit: greatest relative difference of the first result from that of plain; infinity: the difference is stated only.
    """
    start: Callable[[], Callable[[], Any]]
    limit: float = EXACT


class Case(NamedTuple):
    """A work that `ways` does. amount: what one call does, in units of `unit`; 0: its time in seconds is stated instead.

    about: seconds that the case takes on two cores, for the estimate of the time.
    """
    group: str
    name: str
    ways: Callable[[], dict[str, Way]]
    unit: str = "s"
    amount: float = 0
    about: float = 10


class Result(NamedTuple):
    """What was measured: a row for each way, as the JSON file has it, and the reasons why ways were left out."""
    rows: list[dict[str, Any]]
    left_out: list[dict[str, str]]


def measure(case: Case, rounds: int, seconds: float, whole: float = math.inf) -> Result:
    """Measure a case in `rounds` rounds, fewer if they take more than `seconds`.

    After `whole` seconds no further way is prepared, and no round begins after the first ones.
    """
    latest = time.monotonic() + whole
    calls: dict[str, Callable] = {}
    rows: dict[str, dict[str, Any]] = {}
    left_out, expected = [], None
    for name, way in case.ways().items():
        try:
            if calls and time.monotonic() > latest:
                raise LeftOut(f"the {max(whole, 0):.0f} s of this case were over")
            begun = time.perf_counter()
            call = way.start()
            result = call()
            wait()
        except (LeftOut, RuntimeError) as why:            # RuntimeError: full memory, a result that is not finite, what compilers raise
            left_out.append({"group": case.group, "case": case.name, "way": name, "reason": reason(why)})
            continue
        first = time.perf_counter() - begun
        expected = result if expected is None else expected
        calls[name] = call
        rows[name] = {"group": case.group, "case": case.name, "way": name, "unit": case.unit, "first_seconds": first,
                      **compared(result, expected, way.limit), "memory_mib": None, "seconds": []}
    latest = min(latest, time.monotonic() + seconds)
    for number in range(rounds):
        for name in [*calls]:
            try:
                taken, rows[name]["memory_mib"] = timed(calls[name])
            except torch.OutOfMemoryError as why:
                del calls[name], rows[name]
                left_out.append({"group": case.group, "case": case.name, "way": name, "reason": reason(why)})
                continue
            rows[name]["seconds"].append(taken)
        if number + 1 >= LEAST and time.monotonic() > latest:
            break
    for row in rows.values():
        row |= summary(row["seconds"], next(iter(rows.values()))["seconds"], case.amount)
    return Result(list(rows.values()), left_out)


def reason(why: Exception) -> str:
    """Return why a way is left out, in words."""
    return "the GPU memory is full" if isinstance(why, torch.OutOfMemoryError) else short(why, 200)


def timed(call: Callable[[], Any]) -> tuple[float, float | None]:
    """Return the seconds of a call, and on a GPU the MiB that it needs beside what is in the memory before, else None."""
    on_gpu, before = process.device().type == "cuda", 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    wait()
    begun = time.perf_counter()
    call()
    wait()
    taken = time.perf_counter() - begun
    return taken, (torch.cuda.max_memory_allocated() - before) / 2**20 if on_gpu else None


def wait() -> None:
    """Wait until a GPU has computed everything."""
    if process.device().type == "cuda":
        torch.cuda.synchronize()


def summary(seconds: list[float], plain: list[float], amount: float) -> dict[str, float]:
    """Return median, least and most in the unit of the case, and the medians over the rounds of two comparisons with plain.

    ratio: how many times as fast as plain; beyond_seconds: how much longer than plain.
    """
    values = sorted(amount / each if amount else each for each in seconds)
    return {"median": median(values), "least": values[0], "most": values[-1], "rounds": len(values),
            "ratio": median(theirs / ours for theirs, ours in zip(plain, seconds)),
            "beyond_seconds": median(ours - theirs for theirs, ours in zip(plain, seconds))}


def compared(result: Any, expected: Any, limit: float) -> dict[str, Any]:
    """Return how a result differs from that of plain: relative to the greatest value, for images also the mean in levels of 255.

    `equal` is None if the call has no result.
    """
    if result is None:
        return {"difference": None, "mean_levels": None, "equal": None}
    ours, theirs = (torch.as_tensor(each).detach().double().cpu() for each in (result, expected))
    if ours.shape != theirs.shape:
        return {"difference": math.inf, "mean_levels": None, "equal": False}
    change = (ours - theirs).abs()
    difference = (change.max() / theirs.abs().max().clamp(min=1e-12)).item()
    levels = change.mean().item() * 255 if ours.ndim == 4 else None
    return {"difference": difference, "mean_levels": levels, "equal": difference <= limit}
