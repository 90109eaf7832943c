"""The computation of a training step: prediction and loss, tried once before the training, compiled and shared if that is required."""
import contextlib
import time
import warnings

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from contract import Batch, Stage
from loss import Loss
from model.method import Method
from model.teacher import Teacher
from runtime import process
from runtime.errors import Failure, UserError, short


class Step(nn.Module):
    """Method and loss as one module, so that DDP can determine which parameters receive a gradient from the loss."""

    def __init__(self, method: Method, loss: Loss, taught: Teacher | None):
        super().__init__()
        self.method, self.loss, self.taught = method, loss, taught

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and its terms, which are detached."""
        return detached(*self.whole(batch))

    def whole(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and its terms."""
        prediction = self.taught.join(self.method, batch) if self.taught else self.method(batch)
        return self.loss(prediction, batch)


def detached(total: Tensor, terms: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the arguments with detached terms."""
    return total, {name: value.detach() for name, value in terms.items()}


class Compiled(nn.Module):
    """A Step that torch.compile has compiled, which happens in its first call; says how long the first step took."""

    def __init__(self, step: Step):
        super().__init__()
        self.step, self.begun, self.calls = step, 0.0, 0
        self.made = torch.compile(step.whole)      # not with detach: the compiler (torch 2.14) then detaches the total as well

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and its terms, detached; raises Failure if the network cannot be compiled."""
        self.calls += 1
        if self.calls == 1:
            self.begun = time.perf_counter()
            process.log().say("--compile: the first step compiles the network, which takes a minute or more", keep=False)
        if self.calls == 2:
            process.log().say(f"--compile: the first step took {time.perf_counter() - self.begun:.1f} s", keep=False)
        try:
            return detached(*self.made(batch))
        except (UserError, Failure, MemoryError):
            raise
        except Exception as error:        # the compiler raises many types of exceptions
            if self.calls > 1 or "memory" in str(error):
                raise
            raise Failure(f"--compile: this network cannot be compiled here ({short(error, 200)}); leave out --compile") from error


def backward(compute: nn.Module, batch: Batch, parts: int, precision: str, scaler: torch.amp.GradScaler) -> dict[str, Tensor]:
    """Add the gradient of the loss of a batch, computed in `parts` parts, to that of the parameters.

    Return the loss and its terms as means over this process's batch, each () on the device. Raises UserError without a gradient.
    """
    sums: dict[str, Tensor] = {}
    chunks = list(batch.chunks(parts))
    for chunk in chunks:
        alone = not isinstance(compute, DistributedDataParallel) or chunk is chunks[-1]
        with contextlib.nullcontext() if alone else compute.no_sync():
            with process.autocast(precision):
                total, terms = compute(chunk)
            if not total.requires_grad:
                raise UserError("the loss has no gradient, so nothing can be trained; the network must not use torch.no_grad() or detach() "
                                "on the way to its result")
            share = len(chunk) / len(batch)
            scaler.scale(total * share).backward()
        for name, value in {"loss": total.detach(), **terms}.items():
            sums[name] = sums.get(name, 0) + value.float() * share
    return sums


def attempt(method: Method, taught: Teacher | None, stage: Stage, batch: Batch, args) -> bool:
    """Compute the loss of a stage once, so that errors are reported before anything is written.

    Return whether a gradient of this loss reaches every parameter that the stage trains. Raises UserError for what cannot work.
    """
    if stage.patch_size % method.multiple_of:
        raise UserError(f"--patch_size {stage.patch_size}: the model {args.model} needs a multiple of {method.multiple_of}")
    method.enter(stage)
    method.eval()
    with torch.set_grad_enabled(process.world() > 1):     # only DDP needs to know what a gradient reaches
        prediction = taught.join(method, batch) if taught else method(batch)
        method.check(prediction, batch.input)
        total, _ = Loss(stage.loss, args).to(batch.input.device)(prediction, batch)
    return {id(each) for each in method.parameters() if each.requires_grad} <= _reached(total)


def _reached(total: Tensor) -> set[int]:
    """Return the ids of the parameters that a value was computed from."""
    todo, seen, found = [total.grad_fn], set(), set()
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found |= {id(node.variable)} if hasattr(node, "variable") else set()
            todo += [each for each, _ in node.next_functions]
    return found


def shared(step: nn.Module, method: Method, reaches_all: bool) -> nn.Module:
    """Wrap the step of several processes in DDP; parameters without gradient are only looked for if there may be some."""
    device = process.device()
    # weights of one pixel have the same memory in both layouts, with different strides
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return DistributedDataParallel(step, device_ids=[device] if device.type == "cuda" else None,
                                   find_unused_parameters=not (reaches_all and method.same_graph))
