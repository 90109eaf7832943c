"""What the value `auto` leaves open: --precision by a trial of bfloat16, --split_batch by the free memory."""
import copy
import itertools
import math
import time

import torch
from torch.utils.data import DataLoader

from contract import Batch, Stage, collate
from model import update
from model.step import Step, backward
from runtime import memory, process
from runtime.errors import Failure

STEPS = 20                                # steps of the trial in each precision
WORSE = 0.1                               # part of the mean loss of the second half by which that in bfloat16 may be higher


def precision(args, step: Step, loader: DataLoader, split: int) -> str:
    """Return 'bf16' if the device computes with it and STEPS steps are faster and end with as low a loss as in 'single', else 'single'.

    The trial uses the first batches of the loader, each in `split` parts. It changes neither the step nor the random state. All
    processes decide equally.
    """
    if not all(process.gather([process.has_bf16()])):
        process.log().say(f"--precision auto: single, because this {process.device().type} has no bfloat16")
        return "single"
    process.log().say(f"--precision auto: {STEPS} steps in single and in bf16 are compared first", keep=False)
    state = process.random_state()
    batches = [collate([loader.dataset[key] for key in keys]).to(process.device())
               for keys in itertools.islice(loader.batch_sampler, STEPS)]
    (low, fast), (high, slow) = (_trial(args, step, batches, split, each, state) for each in ("bf16", "single"))
    process.set_random_state(state)
    good = all(process.gather([math.isfinite(low) and low <= high + WORSE * abs(high)]))
    gain = min(process.gather([slow / fast]))
    chosen = "bf16" if good and gain > 1 else "single"
    process.log().say(f"--precision auto: {chosen}; the mean loss of the last {STEPS // 2} of {STEPS} steps is {low:.4g} in bf16 and "
                      f"{high:.4g} in single", f"; a step in bf16 is {gain:.2f} times as fast")
    return chosen


def _trial(args, step: Step, batches: list[Batch], split: int, precision: str, state: dict) -> tuple[float, float]:
    """Train a copy of the step's method; return the mean loss of the second half of the steps and the seconds of the fastest step."""
    process.set_random_state(state)
    step = copy.deepcopy(step)            # as a whole, because a teacher refers to modules of the method
    step.method.train()
    optimizer = update.make_optimizer(args, [each for each in step.method.parameters() if each.requires_grad])
    losses, seconds, scaler = [], [], torch.amp.GradScaler(process.device().type, enabled=False)
    for number in range(STEPS):
        begun = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        sums = backward(step, batches[number % len(batches)], split, precision, scaler)
        optimizer.step()
        losses.append(sums["loss"].item())
        seconds.append(time.perf_counter() - begun)
    return sum(losses[-(STEPS // 2):]) / (STEPS // 2), min(seconds)


def parts(step: Step, stage: Stage, image: Batch) -> int:
    """Return in how many parts this process must compute a batch of the stage, so that it fits into the free memory; image: one image.

    The memory that a part needs lies on the line through those of 1 and 2 images. Return 1 if it cannot be measured. All processes
    return the same. Raises Failure if not even one image fits.
    """
    count, free = stage.batch_size // process.world(), memory.available()
    one, two = _needs(step, image)
    if one is None or two is None or free is None:
        found = 1
    else:
        room = int(free * memory.SHARE)
        if one > room:
            raise Failure(f"--split_batch auto: a training step with one image of {stage.patch_size}x{stage.patch_size} pixels needs about "
                          f"{one / 2**30:.2f} GiB, but {room / 2**30:.2f} GiB are free; use a smaller --patch_size")
        found = -(-count // min((room - one) // max(two - one, 1) + 1, count))
    found = max(process.gather([found]))
    process.log().say(f"--split_batch auto: batches of {stage.batch_size} with a patch size of {stage.patch_size} are computed in "
                      f"{found} part{'s' * (found > 1)}")
    return found


def _needs(step: Step, image: Batch) -> list[int | None]:
    """Return how many bytes a step with one image and a step with two images need; None if it cannot be measured."""
    def work(images: int) -> None:
        def repeated(value):
            return value.expand(images, *value.shape[1:]).contiguous()
        targets = {key: repeated(value) for key, value in image.targets.items()}
        step(Batch(image.name * images, repeated(image.input), targets, repeated(image.kind)))[0].backward()

    state = process.random_state()
    step = copy.deepcopy(step)
    step.method.train()
    work(2)                               # allocates the gradients, which stay, and what the libraries need
    needed = [memory.peak(lambda images=images: work(images)) for images in (1, 2)]
    process.set_random_state(state)
    return needed
