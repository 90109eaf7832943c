"""Small helpers: errors, atomic files, seeds, the log, curves, optimiser and schedule."""
import contextlib
import hashlib
import io
import json
import math
import os
import random
import socket
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

SUM = b"\nunweather sha256 "                # stands before the checksum at the end of our files of tensors


class UserError(ValueError):
    """Something that the user can mend; main prints the text as one sentence and exits with status 2."""

    def __str__(self) -> str:
        # a DataLoader worker hands an error over with its traceback around the text
        return super().__str__().rpartition("UserError: ")[2].strip()


class Failure(RuntimeError):
    """A run that cannot go on; main prints the text as one sentence and exits with status 1."""


class Interrupted(Exception):
    """A signal asked for the end in the middle of a test."""


class Stopped(BaseException):
    """A signal asked the run to end, and it has saved its state; `status` is the exit status that says which signal."""

    def __init__(self, text: str, status: int):
        super().__init__(text)
        self.status = status


def folder(path: Path) -> Path:
    """Return a folder, made if it was not there."""
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Yield a file beside `path` that takes its place when the block ends well, and goes when it does not."""
    part = path.with_name(f".{uuid.uuid4().hex[:12]}.part")
    try:
        yield part
        os.replace(part, path)
        sync_folder(path.parent)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(part)):
            error.filename, error.filename2 = str(path), None
        raise


def sync_folder(place: Path) -> None:
    """Bring a folder's names to the disk, so that a file that has taken its place keeps it when the power fails."""
    with contextlib.suppress(OSError):                    # some file systems cannot
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def locked(path: Path, busy: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file `path` for the length of the block; it falls free by itself when the process ends.

    `busy` is told who holds it, before waiting for its end; it may raise instead.
    """
    import fcntl
    folder(path.parent)
    with open(path, "a+", encoding="utf-8") as file:
        file.seek(0)
        holder = file.read().strip() or "another process"
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            busy(holder)
            fcntl.lockf(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with temporary(path) as part, open(part, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: object) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_tensors(path: Path, content: dict) -> None:
    """Write a dictionary of tensors and plain values with a checksum behind it; the file appears whole or not at all."""
    buffer = io.BytesIO()                 # torch.save itself hides why a disk refused to write
    torch.save(content, buffer)
    data = buffer.getbuffer()
    with temporary(path) as part, open(part, "wb") as file:
        file.write(data)
        file.write(SUM + hashlib.sha256(data).hexdigest().encode())
        file.flush()
        os.fsync(file.fileno())


def read_tensors(path: str | Path) -> dict:
    """Read a file of tensors and plain values, without running anything in it; UserError if it is none or damaged."""
    if not Path(path).is_file():
        raise UserError(f"there is no file {path}; a file of weights (.pt, .pth) is wanted")
    data = Path(path).read_bytes()
    body, mark, digest = data[:-64 - len(SUM)], data[-64 - len(SUM):-64], data[-64:]
    if mark == SUM and hashlib.sha256(body).hexdigest().encode() != digest:
        raise UserError(f"{path} is damaged: its checksum does not fit")
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:            # torch.load raises almost anything for foreign bytes
        raise UserError(f"{path} is damaged or no file of weights (only tensors and plain values are read)") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no named weights")
    return content


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of every key over rows that have the same keys."""
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]} if rows else {}


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch and choose deterministic convolutions, so that a run can be repeated."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


class Log:
    """log.txt for people, log.jsonl for programs: the same for the same training, however often it was interrupted.

    times.jsonl has what differs: speeds, stops and resumptions. Quiet in all processes but the first. What is said
    before `open` names the folder is written there afterwards.
    """

    FILES = ("log.txt", "log.jsonl")

    def __init__(self, quiet: bool = False):
        self.quiet, self.place = quiet, None
        self.waiting: list[str] = []
        self.followers: list[Callable[[str, dict], None]] = []    # told of every event (see logger.py)

    def open(self, place: Path, lengths: dict[str, int] | None = None) -> None:
        """Write to a folder from now on; a training that goes on cuts the files to the `lengths` of its state."""
        self.place = place.resolve()
        for name, length in (lengths or {}).items():
            if not self.quiet and (self.place / name).is_file():
                os.truncate(self.place / name, min(length, (self.place / name).stat().st_size))
        for text in self.waiting if not any((lengths or {}).values()) else ():
            self._write("log.txt", text)
        self.waiting = []

    def lengths(self) -> dict[str, int]:
        """Return how long the files are, in bytes."""
        return {name: (self.place / name).stat().st_size if (self.place / name).is_file() else 0 for name in self.FILES}

    def say(self, text: str, aside: str = "", keep: bool = True) -> None:
        """Print a line and what is said aside, clear of progress bars, and add the line to log.txt if it is to be kept."""
        if not self.quiet:
            tqdm.write(text + aside, file=sys.stdout)
            sys.stdout.flush()
            if self.place and keep:
                self._write("log.txt", text)
            elif keep:
                self.waiting.append(text)

    def time(self, event: str, **values: object) -> None:
        """Add one JSON object to times.jsonl."""
        if self.place and not self.quiet:
            self._write("times.jsonl", json.dumps({"event": event, **values}, ensure_ascii=False))

    def record(self, event: str, **values: object) -> None:
        """Add one JSON object to log.jsonl."""
        if self.place and not self.quiet:
            self._write("log.jsonl", json.dumps({"event": event, **values}, ensure_ascii=False))
            self.tell(event, **values)

    def tell(self, event: str, **values: object) -> None:
        """Tell the followers of an event."""
        for follower in self.followers:
            follower(event, values)

    def _write(self, name: str, line: str) -> None:
        path = self.place / name
        with open(path, "ab+") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
            whole = file.read(1) in (b"", b"\n")          # a kill may have cut the last line short
            file.write(("" if whole else "\n").encode() + line.encode("utf-8", "backslashreplace") + b"\n")


def curves(place: Path) -> None:
    """Draw the losses and the test PSNR of log.jsonl against the epoch, as curves.png and curves.pdf."""
    records = []
    for line in (place / "log.jsonl").read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):             # a line that a kill cut short
            records.append(json.loads(line))
    epochs = [r for r in records if r["event"] == "epoch"]
    tests = [r for r in records if r["event"] == "test" and r.get("epoch") and "psnr" in r]
    from matplotlib.figure import Figure  # no pyplot: needs no screen and keeps no state
    from matplotlib.ticker import MaxNLocator
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in sorted({name for r in epochs for name in r["losses"]}):
        points = [(r["epoch"], r["losses"][name]) for r in epochs if name in r["losses"]]
        left.plot(*zip(*points), label=name, marker="." if len(points) < 30 else None)
    for name in sorted({r["data_set"] for r in tests}):
        points = [(r["epoch"], r["psnr"]) for r in tests if r["data_set"] == name]
        right.plot(*zip(*points), label=name, marker="." if len(points) < 30 else None)
    for axes, what in ((left, "training loss"), (right, "test PSNR, dB (RGB)")):
        axes.set(xlabel="epoch", ylabel=what)
        axes.grid(alpha=.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.lines:
            axes.legend(frameon=False)
    for kind in ("png", "pdf"):
        with temporary(place / f"curves.{kind}") as part:
            figure.savefig(part, format=kind, dpi=120)


def heat_map(path: Path, values: np.ndarray, label: str) -> None:
    """Draw (H, W) numbers in colours, a pixel each, with their scale beside, as a PNG."""
    from matplotlib.figure import Figure
    height, width = values.shape
    figure = Figure(figsize=((width + 150) / 100, (height + 40) / 100), dpi=100)
    axes = figure.add_axes((0.05 * 150 / (width + 150), 20 / (height + 40), width / (width + 150), height / (height + 40)))
    drawn = axes.imshow(values, cmap="inferno", interpolation="nearest")
    axes.axis("off")
    scale = figure.add_axes(((width + 25) / (width + 150), 20 / (height + 40), 15 / (width + 150), height / (height + 40)))
    figure.colorbar(drawn, cax=scale, label=label)
    with temporary(path) as part:
        figure.savefig(part, format="png")


def make_optimizer(args, parameters) -> torch.optim.Optimizer:
    """Make the optimiser that --optimizer names: SGD, ADAM, ADAMW or RMSPROP."""
    common = dict(lr=args.lr, weight_decay=args.weight_decay)
    if args.optimizer == "SGD":
        return torch.optim.SGD(parameters, momentum=args.momentum, **common)
    if args.optimizer == "RMSPROP":
        return torch.optim.RMSprop(parameters, eps=args.epsilon, momentum=args.momentum, **common)
    adam = {"ADAM": torch.optim.Adam, "ADAMW": torch.optim.AdamW}[args.optimizer]
    return adam(parameters, betas=args.adam_betas, eps=args.epsilon, **common)


def learning_rate(args, progress: float) -> float:
    """Return the learning rate at a point of the training, `progress` counted in epochs from 0.

    Linear from 0 during --warmup epochs; then by --schedule: `step` multiplies by --gamma at each epoch of --decay,
    `cosine` falls to --lr_min at the last epoch.
    """
    if progress < args.warmup:
        return args.lr * progress / args.warmup
    if args.schedule == "step":
        return args.lr * args.gamma ** sum(progress >= epoch for epoch in args.milestones)
    done = (progress - args.warmup) / max(args.epochs - args.warmup, 1e-9)
    return args.lr_min + (args.lr - args.lr_min) * 0.5 * (1 + math.cos(math.pi * min(done, 1)))


@torch.no_grad()
def update_average(average: torch.nn.Module, network: torch.nn.Module, decay: float, steps: int) -> None:
    """Move the averaged weights towards the network's; in the first steps faster than `decay` says."""
    rate = 1 - min(decay, (1 + steps) / (10 + steps))
    for mean, value in zip(average.state_dict().values(), network.state_dict().values()):
        if mean.is_floating_point():
            mean.lerp_(value, rate)
        else:
            mean.copy_(value)
