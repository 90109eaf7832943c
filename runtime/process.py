"""Where a run computes: device, precision, the processes of torchrun, and the log of this process."""
import atexit
import contextlib
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist

from runtime.errors import UserError
from runtime.log import Log

PRECISIONS = {"single": torch.float32, "half": torch.float16, "bf16": torch.bfloat16}
RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
GRACE = 5.0                               # seconds beyond one step in which a process ends after a signal
_device = torch.device("cpu")
_log = Log()
_step_seconds = 0.0
_restarted = False
_signal = 0                               # the signal that asked this process to end


@contextlib.contextmanager
def session(cpu: bool, n_gpus: int) -> Iterator[None]:
    """Choose the device and, under torchrun, join the process group for the length of the block.

    UserError when more GPUs are asked for than one process can drive.
    """
    global _device, _log, _restarted
    _log = Log(quiet=rank() > 0)
    cuda = torch.cuda.is_available() and not cpu and n_gpus > 0
    if n_gpus > 1 and world() == 1:
        raise UserError(f"--n_GPUs {n_gpus} needs one process per GPU; start it as: "
                        f"torchrun --nproc_per_node {n_gpus} main.py … (the same flags)")
    if cuda and world() > 1 and local_rank() >= torch.cuda.device_count():
        raise UserError(f"torchrun started {world()} processes, but this machine has {torch.cuda.device_count()} GPUs; "
                        "start at most one process per GPU, or add --cpu")
    _device = torch.device("cuda", local_rank()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(_device)
    if world() > 1:
        _meet("nccl" if cuda else "gloo")
    _restarted = any(gather([any(os.environ.get(name, "0") not in ("", "0") for name in RESTARTS)]))
    try:
        yield
        with contextlib.suppress(RuntimeError):           # another process has failed
            barrier()                     # no process leaves the group while another one still communicates
    finally:
        _log = Log()
        if dist.is_initialized():
            dist.destroy_process_group()


def leave(command: Callable[[], int]) -> NoReturn:
    """Run `command` and end this process with the status that it returns, 1 after an exception.

    One of several processes ends without the teardown of the interpreter. DistributedDataParallel keeps the process
    group after `destroy_process_group`, so that gloo's threads still run. A thread that asks for the interpreter's lock
    during the teardown is ended inside a C++ destructor, and the process dies of SIGABRT (PyTorch issue 190489).
    """
    if world() == 1:
        sys.exit(command())
    status = 1
    try:
        status = command()
    except Exception:
        traceback.print_exc()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()               # ends the processes of data loaders, and what a tracker has open
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _meet(backend: str) -> None:
    """Join the process group.

    torchrun keeps one store for all its restarts: on one machine each meets under a name of its own, lest it take the
    address of a process that is gone for that of its partner (several machines: see job.sh in docs/training.md).
    """
    store, number, size = next(dist.rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        store = dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group(backend, store=store, rank=number, world_size=size)


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """Within the block SIGTERM and SIGINT only ask to end (see `asked_to_end`); a second SIGINT ends at once."""
    global _signal
    _signal = 0

    def handle(number: int, _) -> None:
        global _signal
        if _signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        _signal = _signal or number
        if world() > 1:                   # another process may have died while this one waits for it
            timer = threading.Timer(2 * _step_seconds + GRACE, os._exit, (128 + number,))
            timer.daemon = True
            timer.start()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def asked_to_end() -> int:
    """Return the number of the signal that asked this process to end, 0 if none did."""
    return _signal


def step_took(seconds: float) -> None:
    """Note how long a step takes, for how long to wait after a signal."""
    global _step_seconds
    _step_seconds = max(_step_seconds, seconds)


def random_state() -> dict:
    """Return the state of all random numbers as tensors and plain values."""
    python = random.getstate()
    numpy_: Any = np.random.get_state()
    return {"python": [python[0], list(python[1]), python[2]], "numpy": [numpy_[0], numpy_[1].tolist(), *numpy_[2:]],
            "torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if _device.type == "cuda" else None}


def set_random_state(state: dict) -> None:
    """Take up what `random_state` gave."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and _device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"])


def restarted() -> bool:
    """Return whether torchrun or SLURM started this run, on any machine, anew after it had failed or was requeued."""
    return _restarted


def device() -> torch.device:
    """Return the device of this process."""
    return _device


def rank() -> int:
    """Return this process's number among all of the run, 0 for the one that writes."""
    return int(os.environ["RANK"]) if _launched() else 0


def local_rank() -> int:
    """Return this process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0)) if _launched() else 0


def world() -> int:
    """Return the number of processes of the run."""
    return int(os.environ["WORLD_SIZE"]) if _launched() else 1


def _launched() -> bool:
    """Return whether torchrun started this process; some schedulers set a part of these names."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def quiet() -> bool | None:
    """Return tqdm's `disable`: no progress bar but in the first process, and there only on a terminal (None)."""
    return None if rank() == 0 else True


def log() -> Log:
    """Return the log of this run."""
    return _log


def gather(values: list[Any]) -> list[Any]:
    """Return the lists of all processes joined, in order of rank."""
    if world() == 1:
        return values
    parts: list[list[Any]] = [[] for _ in range(world())]
    dist.all_gather_object(parts, values)
    return [value for part in parts for value in part]


def mean(value: torch.Tensor) -> torch.Tensor:
    """Return the mean of a tensor over all processes."""
    if world() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= world()
    return value


def mean_with_own_gradient(value: torch.Tensor) -> torch.Tensor:
    """Return a scalar's mean over all processes, whose gradient is that of this process's share.

    DDP averages the gradients of the processes: what is computed from such a mean, a ratio say, then has the gradient
    that one process with the whole batch would find.
    """
    return value + (mean(value.detach()) - value.detach()) if world() > 1 else value


def gather_batch(value: torch.Tensor) -> torch.Tensor:
    """Return (B, …) tensors of equal shape of all processes, joined along the batch, without gradient."""
    if world() == 1:
        return value
    parts = [torch.empty_like(value) for _ in range(world())]
    dist.all_gather(parts, value.contiguous())
    return torch.cat(parts)


def barrier() -> None:
    """Wait for all processes."""
    if world() > 1:
        dist.barrier()


def autocast(precision: str) -> torch.autocast:
    """Return the context in which a network computes in `precision` (single, half, bf16)."""
    return torch.autocast(_device.type, PRECISIONS[precision], enabled=precision != "single")


def exact_convolutions():
    """Return the context in which a GPU's convolutions are true fp32, without TF32's 10-bit products."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
