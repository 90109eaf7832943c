"""python -m tool.profile MODEL [flags of main.py]: size, speed and memory of a network, and where the time of a training step goes."""
import argparse
import itertools
import sys
import time
from collections.abc import Callable

if __name__ == "__main__":                # before torch is imported
    from runtime import waiting
    waiting.before_torch()

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import data
import model
import option
import utility
from contract import Batch, Stage, collate
from loss import Loss
from model import update
from model.method import Method
from restore.restorer import Restorer, Settings
from runtime import arguments, memory, process
from runtime.errors import UserError
from tool import guarded

COUNTED = 256                             # side in pixels for which multiply-adds are counted
MATRIX, COPIED = 2048, 2**28              # side of the matrices, bytes of the copy, with which the machine is measured
RUNS = 3                                  # timed runs, of which the median counts


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, argparse.Namespace]:
    """Return the flags of this tool and those of the network; raises UserError for a wrong flag or value."""
    parser = arguments.Parser(prog="tool.profile", description=__doc__, allow_abbrev=False)
    parser.add_argument("model", help=f"one of {', '.join(model.MODELS)}; other flags are those of main.py, such as --channels")
    parser.add_argument("--side", type=arguments.SIZE, default=512, help="side in pixels of the image that is restored")
    parser.add_argument("--backend", default="torch", metavar="A+B", help="backends to measure, joined by +")
    parser.add_argument("--precisions", default="single+bf16", metavar="A+B", help="precisions to measure, joined by +")
    parser.add_argument("--steps", type=arguments.SIZE, default=5, help="training steps to measure")
    own, others = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    return own, option.parse(["--model", own.model, *others])


def run(argv: list[str] | None = None) -> None:
    """Print the profile of a network with random weights, or those of --pre_train."""
    own, args = parse(argv)
    with process.session(args.cpu, args.n_GPUs):
        utility.seed_everything(args.seed)
        method = model.build(args).to(process.device(), memory_format=torch.channels_last).eval()
        print(f"{args.model} on {process.device()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
        print(f"{'parameters':28}{sum(p.numel() for p in method.network.parameters()):,}")
        print(f"{f'multiply-adds, {COUNTED}x{COUNTED}':28}{multiply_adds(method) / 1e9:.2f} G")
        print(f"\n{'restoring':28}{'s/megapixel':>12}{'MiB/megapixel':>15}{'largest image that fits':>26}")
        for backend in own.backend.split("+"):
            for precision in own.precisions.split("+"):
                if precision not in process.PRECISIONS:
                    raise UserError(f"--precisions {precision}: known are {', '.join(process.PRECISIONS)}")
                restoring(method, backend, precision, own.side)
        training(method, args, own.steps)


def multiply_adds(method: Method) -> float:
    """Return the multiply-adds of convolutions and matrix products for an image of COUNTED x COUNTED pixels."""
    x = torch.rand(1, 3, COUNTED, COUNTED, device=process.device())
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        method.restore(x)
    return counter.get_total_flops() / 2


def restoring(method: Method, backend: str, precision: str, side: int) -> None:
    """Print the time and the memory of restoring an image of side x side pixels."""
    restorer = Restorer(method, Settings(precision=precision, backend=backend))
    x = torch.rand(1, 3, side, side)
    restorer(x, may_tile=False)           # opens the backend
    each, free = memory.per_pixel(lambda part: restorer(part, may_tile=False), restorer.backend.release), memory.available()
    seconds = median(lambda: restorer(x, may_tile=False).cpu())
    largest = f"{(free or 0) * memory.SHARE / each / 1e6:.1f} megapixels" if each and free else "unknown"
    needs = f"{each * 1e6 / 2**20:.0f}" if each else "unknown"
    what = f"{restorer.backend.name}, {restorer.backend.precision or precision}"
    print(f"{what:28}{seconds / (side * side) * 1e6:12.2f}{needs:>15}{largest:>26}")


def median(work: Callable[[], object]) -> float:
    """Return the median time of RUNS calls in seconds."""
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[RUNS // 2]


def training(method: Method, args, steps: int) -> None:
    """Print the time of a training step of the last stage, its shares and its floors, on random patches."""
    stage = args.stages[-1]
    precision = args.precision if args.precision != "auto" else "bf16" if process.has_bf16() else "single"
    method.prepare(args)
    method.enter(stage)
    method.train()
    loss = Loss(stage.loss, args).to(process.device())
    optimizer = update.make_optimizer(args, [parameter for parameter in method.parameters() if parameter.requires_grad])
    batch = random_batch(stage.batch_size, stage.patch_size, loss)
    took = {"data": reading(args, stage, steps), "forward": 0.0, "backward": 0.0, "optimiser": 0.0}

    def forward() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with process.autocast(precision):
            return loss(method(batch), batch)[0]

    for number in range(steps + 1):       # the first step is not measured
        times = [time.perf_counter()]
        total = wait(forward())
        times.append(time.perf_counter())
        total.backward()
        wait(total)
        times.append(time.perf_counter())
        optimizer.step()
        wait(total)
        times.append(time.perf_counter())
        if number:
            for name, start, end in zip(list(took)[1:], times, times[1:]):
                took[name] += (end - start) / steps
    whole = sum(took.values())
    print(f"\ntraining, {precision}, batch {stage.batch_size}, patch {stage.patch_size}, loss {stage.loss}: {1 / whole:.2f} steps/s, "
          f"{stage.batch_size / whole:.1f} patches/s, {'data read by one process' if took['data'] else 'without reading data'}")
    for name, seconds in took.items():
        print(f"{'  ' + name:28}{seconds * 1000:10.1f} ms{100 * seconds / whole:7.1f} %")

    def step() -> None:
        forward().backward()
        optimizer.step()
    for line in floors(forward, step, precision):
        print(line)


def reading(args, stage: Stage, steps: int) -> float:
    """Return the seconds in which one process reads and crops the images of a batch, 0 without --data_train."""
    if args.origin["data_train"].partition(" ")[0] in (option.DEFAULT, "recipe"):
        return 0.0
    loader = next(iter(data.runs(args))).train(stage)
    keys = list(itertools.islice(loader.batch_sampler, steps))
    start = time.perf_counter()
    for each in keys:
        collate([loader.dataset[key] for key in each])
    return (time.perf_counter() - start) / len(keys)


class Traffic(TorchDispatchMode):
    """Counts the bytes that the operators within the block read and write; views of other tensors count as nothing."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Run an operator (called by PyTorch)."""
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            tensors = [each for each in tree_leaves((args, kwargs, result)) if isinstance(each, Tensor)]
            self.bytes += sum(each.numel() * each.element_size() for each in tensors)
        return result


def floors(forward: Callable[[], object], step: Callable[[], object], precision: str) -> list[str]:
    """Return what a step needs at this machine's rates, in words: its arithmetic, and its memory traffic if no cache holds anything.

    The multiply-adds are three times those of the forward pass: the gradients of inputs and of weights need as many each. (PyTorch's
    counter counts depthwise convolutions in the backward pass as dense ones.)
    """
    counter, traffic = FlopCounterMode(display=False), Traffic()
    with counter:
        forward()
    with traffic:
        step()
    adds, kind = 3 * counter.get_total_flops() / 2, process.PRECISIONS[precision]
    matrix = torch.rand(MATRIX, MATRIX, device=process.device()).to(kind)
    block, other = (torch.zeros(COPIED, dtype=torch.uint8, device=process.device()) for _ in range(2))
    multiply = MATRIX**3 / median(lambda: wait(matrix @ matrix))
    copy = 2 * COPIED / median(lambda: wait(other.copy_(block)))
    return [f"{'  arithmetic':28}{adds / multiply * 1000:10.1f} ms: {adds / 1e9:.2f} G multiply-adds at the "
            f"{multiply / 1e9:.0f} G/s of a matrix product",
            f"{'  memory':28}{traffic.bytes / copy * 1000:10.1f} ms: {traffic.bytes / 2**20:.0f} MiB read and written by "
            f"the operators at the {copy / 2**30:.1f} GiB/s of a copy, without caches"]


def random_batch(count: int, side: int, loss: Loss) -> Batch:
    """Return a batch of random images with every target that a loss could read."""
    def images() -> Tensor:
        return torch.rand(count, 3, side, side).contiguous(memory_format=torch.channels_last)
    return Batch([str(number) for number in range(count)], images(), {"image": images(), "mask": images()},
                 torch.zeros(count, dtype=torch.int64)).to(process.device())


def wait(value: Tensor) -> Tensor:
    """Wait until a GPU has computed a value; return it."""
    if value.device.type == "cuda":
        torch.cuda.synchronize(value.device)
    return value


if __name__ == "__main__":
    sys.exit(guarded("tool.profile", run))
