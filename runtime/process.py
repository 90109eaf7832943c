"""Device, precision, signals and random numbers of this process, the process group of torchrun, and the log."""
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

from runtime import waiting
from runtime.errors import UserError
from runtime.log import Log

PRECISIONS = {"single": torch.float32, "half": torch.float16, "bf16": torch.bfloat16}
RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
GRACE = 5.0                               # after a signal a process of several ends within two steps and this many seconds
_device = torch.device("cpu")
_log = Log()
_step_seconds = 0.0
_restarted = False
_signal = 0                               # number of the received SIGTERM or SIGINT, 0: none


@contextlib.contextmanager
def session(cpu: bool, n_gpus: int) -> Iterator[None]:
    """Choose the device and, under torchrun, join the process group within the block.

    Raises UserError if one process is started with several GPUs, or if there are more processes than GPUs.
    """
    global _device, _log, _restarted
    _log = Log(quiet=rank() > 0)
    cuda = torch.cuda.is_available() and not cpu and n_gpus > 0
    if n_gpus > 1 and world() == 1:
        raise UserError(f"--n_GPUs {n_gpus} needs one process per GPU; start the program with "
                        f"`torchrun --nproc_per_node {n_gpus} main.py` and the same flags")
    if cuda and world() > 1 and local_rank() >= torch.cuda.device_count():
        raise UserError(f"torchrun started {world()} processes, but this machine has {torch.cuda.device_count()} GPUs; "
                        "start at most one process per GPU, or add --cpu")
    _device = torch.device("cuda", local_rank()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(_device)
    if world() > 1:
        _join_group("nccl" if cuda else "gloo")
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
    """Run `command` and end this process with the status that it returns, or with 1 after an exception.

    If there are several processes, this one exits without the teardown of the interpreter. DistributedDataParallel keeps
    the process group after `destroy_process_group`, so that the threads of gloo still run. A C++ thread that is ended during
    the teardown, because it requests the interpreter's lock, aborts the process: "terminate called without an active exception",
    SIGABRT (PyTorch issue 190489).
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
    atexit._run_exitfuncs()               # ends the worker processes of data loaders and closes the trackers
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _join_group(backend: str) -> None:
    """Join the process group.

    torchrun keeps one store for all its restarts. On one machine each restart uses its own prefix in the store, so that a
    process does not read the address of a process of an earlier start (several machines: see job.sh in docs/training.md).
    """
    store, number, size = next(dist.rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        store = dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group(backend, store=store, rank=number, world_size=size)


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """Within the block SIGTERM and SIGINT are only recorded (see `asked_to_end`); a second SIGINT raises KeyboardInterrupt."""
    global _signal
    _signal = 0

    def handle(number: int, _) -> None:
        global _signal
        if _signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        _signal = _signal or number
        if world() > 1:                   # this process may be waiting for a process that has died
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
        _signal = 0                       # a later test in the same process is not asked to end
        for number, handler in before.items():
            signal.signal(number, handler)


def asked_to_end() -> int:
    """Return the number of the SIGTERM or SIGINT that this process has received, 0 if none."""
    return _signal


def step_took(seconds: float) -> None:
    """Record the duration of a step; the longest one determines how long a process may continue after a signal."""
    global _step_seconds
    _step_seconds = max(_step_seconds, seconds)


def random_state() -> dict:
    """Return the state of all random number generators as tensors and plain values."""
    python = random.getstate()
    numpy_: Any = np.random.get_state()
    return {"python": [python[0], list(python[1]), python[2]], "numpy": [numpy_[0], numpy_[1].tolist(), *numpy_[2:]],
            "torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if _device.type == "cuda" else None}


def set_random_state(state: dict) -> None:
    """Restore the random state that `random_state` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and _device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"])


def threads() -> dict[str, int]:
    """Return how many threads compute on the CPU and how many cores this process may use."""
    return {"threads": torch.get_num_threads(), "cores": waiting.own_cores()}


def set_threads(threads: int, cores: int) -> None:
    """Use the number of threads that the function `threads` returned, since it determines the order of sums.

    It is kept as it is if the user has set OMP_NUM_THREADS, or on a machine with another number of cores.
    """
    chosen = "OMP_NUM_THREADS" not in os.environ or waiting.BUSY in os.environ
    if chosen and cores == waiting.own_cores() and 0 < threads <= cores:
        torch.set_num_threads(threads)


def about_threads() -> str:
    """Return a sentence on the number of threads if other programs reduced it at the start, else ''."""
    if waiting.BUSY not in os.environ or torch.get_num_threads() >= waiting.own_cores():
        return ""
    return (f"other programs use {os.environ[waiting.BUSY]} of the {waiting.own_cores()} cores, so this one computes with "
            f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}; OMP_NUM_THREADS=N sets another number")


def restarted() -> bool:
    """Return whether torchrun or SLURM has restarted this run, on any machine, after a failure or a requeue."""
    return _restarted


def device() -> torch.device:
    """Return the device of this process."""
    return _device


def rank() -> int:
    """Return the rank of this process in the run; the process of rank 0 writes the files."""
    return int(os.environ["RANK"]) if _launched() else 0


def local_rank() -> int:
    """Return the rank of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0)) if _launched() else 0


def world() -> int:
    """Return the number of processes of the run."""
    return int(os.environ["WORLD_SIZE"]) if _launched() else 1


def _launched() -> bool:
    """Return whether torchrun started this process; some schedulers set only a part of these variables."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def quiet() -> bool | None:
    """Return tqdm's `disable`: True except in the first process, where None shows a progress bar only on a terminal."""
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
    """Return a scalar's mean over all processes, with the gradient of this process's value.

    DDP averages the gradients of the processes. A value computed from such a mean, for example a ratio, then has the
    gradient that one process would compute for the whole batch.
    """
    return value + (mean(value.detach()) - value.detach()) if world() > 1 else value


def gather_batch(value: torch.Tensor) -> torch.Tensor:
    """Return the tensors (B, …) of all processes, of equal shape, concatenated along the batch, without gradient."""
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
    """Return a context in which a network computes in `precision` (single, half, bf16)."""
    return torch.autocast(_device.type, PRECISIONS[precision], enabled=precision != "single")


def has_bf16() -> bool:
    """Return whether the device computes in bfloat16 itself."""
    if _device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}       # torch 2.10 has only the other function
    return bool(known.get("amx_bf16") or known.get("bf16") or torch.cpu._is_avx512_bf16_supported())


def exact_convolutions():
    """Return a context in which GPU convolutions use full float32, not the 10-bit mantissa of TF32."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
