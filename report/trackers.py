"""--logger: write the numbers of log.jsonl and an example of every test to TensorBoard or Weights & Biases."""
import contextlib
import importlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from data import image
from runtime import files, process
from runtime.errors import Failure, UserError

PACKAGES = {"tensorboard": ("torch.utils.tensorboard", "tensorboard"), "wandb": ("wandb", "wandb")}     # kind: (module, package to install)
SIDE = 512                                # longest side in pixels of the images of an example
SETTINGS = ("tile", "tile_overlap", "count")              # numbers in the record of a test that are not results


def prepare(kind: str) -> None:
    """Raise UserError when the package for --logger is missing or a login is required and missing."""
    if kind not in PACKAGES:
        return
    module, package = PACKAGES[kind]
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"--logger {kind} needs the package {package}: pip install {package}") from error
    if hasattr(found, "login") and os.environ.get("WANDB_MODE") not in ("offline", "disabled"):
        with contextlib.suppress(TypeError):              # an old version lacks these arguments and asks when the run starts
            if not found.login(prompt=False, verify=False):
                raise UserError(f"--logger {kind}: you are not logged in; run `wandb login` or set WANDB_MODE=offline")


@contextlib.contextmanager
def following(args, folder: Path, trainer) -> Iterator[None]:
    """Within the block, the first process also writes the records of the log to the tracker that --logger names."""
    if args.logger not in PACKAGES or process.rank() > 0:
        yield
        return
    plan = trainer.plan if trainer else []
    done = step_of(plan, trainer.epoch + 1, trainer.step) if trainer else 0
    sink = {"tensorboard": TensorBoard, "wandb": Wandb}[args.logger](folder, args, done)
    write = follower(sink, plan)
    process.log().followers.append(write)
    try:
        yield
    finally:
        process.log().followers.remove(write)
        sink.close()


def step_of(plan: list[tuple[int, int]], epoch: int, step: int) -> int:
    """Return the number of steps since the start, for an epoch and a step as in the log; the plan lists (epochs, steps per epoch)."""
    lengths = [length for epochs, length in plan for _ in range(epochs)]
    return sum(lengths[:epoch - 1]) + step


def scalars(event: str, values: dict) -> dict[str, float]:
    """Return the numbers of a record of log.jsonl by name, for example train/loss, epoch/lr, test/SET/psnr and final/SET/psnr."""
    if event in ("train", "epoch"):
        return {f"{event}/{key}": value for key, value in {**values["losses"], "lr": values["lr"]}.items()}
    if event != "test":
        return {}
    place = f"{'final' if values['epoch'] is None else 'test'}/{values['data_set']}"
    return {f"{place}/{key}": value for key, value in values.items() if isinstance(value, float) and key not in SETTINGS}


def side_by_side(parts: list[Tensor]) -> np.ndarray:
    """Return images (1, 3, H, W) in [0, 1] side by side as (h, w, 3) uint8; sides above SIDE are reduced."""
    pictures = [Image.fromarray(image.to_array(part[0])) for part in parts]
    for each in pictures:
        each.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    return np.hstack([np.asarray(each) for each in pictures])


def follower(sink, plan: list[tuple[int, int]]) -> Callable[[str, dict], None]:
    """Return a function that is called with every event of the log and writes its numbers and images to a sink."""
    whole = sum(epochs for epochs, _ in plan)

    def write(event: str, values: dict) -> None:
        epoch = values.get("epoch") or whole
        step = step_of(plan, epoch, values["step"]) if event == "train" else step_of(plan, epoch + 1, 0)
        if event == "example":
            place = "final" if values["epoch"] is None else "test"
            parts = values["parts"]
            sink.picture(f"{place}/{values['data_set']}/example", side_by_side([*parts.values()]), " | ".join(parts), step)
        else:
            sink.numbers(scalars(event, values), step)
    return write


class TensorBoard:
    """Writes event files to <folder>/tensorboard; a resumed run hides earlier values after the step `done`."""

    def __init__(self, folder: Path, args, done: int):
        from torch.utils.tensorboard import SummaryWriter
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1 if done else None)

    def numbers(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def picture(self, name: str, picture: np.ndarray, caption: str, step: int) -> None:
        self.writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class Wandb:
    """A run of the W&B project `unweather`, named by --save; its id is kept in <folder>/wandb.txt, so that it can be resumed."""

    def __init__(self, folder: Path, args, done: int):
        import wandb
        self.wandb, kept = wandb, folder / "wandb.txt"
        if not (done and kept.is_file()):
            files.write_text(kept, f"{uuid.uuid4().hex}\n")
        try:
            self.run = wandb.init(project=os.environ.get("WANDB_PROJECT", "unweather"), name=args.save, dir=str(folder.resolve()),
                                  id=kept.read_text(encoding="utf-8").strip(), resume="allow", config=dict(args.flags))
        except Exception as error:        # wandb has many exception types of its own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise Failure(f"--logger wandb: {reason}; try `wandb login` or WANDB_MODE=offline") from error
        self.run.define_metric("step")    # our steps can repeat; the steps of wandb cannot
        self.run.define_metric("*", step_metric="step")

    def numbers(self, values: dict[str, float], step: int) -> None:
        self.run.log({**values, "step": step})

    def picture(self, name: str, picture: np.ndarray, caption: str, step: int) -> None:
        self.run.log({name: self.wandb.Image(picture, caption=caption), "step": step})

    def close(self) -> None:
        self.run.finish()
