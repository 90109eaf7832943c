"""Ways of restoring an image, of training, and of reading training data: plain code and this framework's."""
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import data
import loss
import model
import option
import utility
from contract import Batch
from data import degrade, demo, image, loader
from loss import Loss
from restore import backend
from restore.restorer import Restorer, Settings
from runtime import process
from runtime.files import make_folder
from tool.bench import plain
from tool.bench.timing import EXACT, PLAIN, LeftOut, Way
from trainer import Trainer

STATED = float("inf")                     # limit of ways in reduced precision, whose difference from plain is only stated
SIZE = (321, 481)                         # height and width of the images of the data set
SLOW_BF16 = "this device has no instructions for matrix products in bf16"


class Network(NamedTuple):
    """A network to measure. Restoring: flags, (height, width); training: flags, batch size, loss; about: seconds of both on two cores."""
    restore: tuple[str, ...]
    size: tuple[int, int]
    train: tuple[str, ...]
    batch: int
    loss: str
    about: tuple[float, float]


NETWORKS = {
    "two_stage_kd": Network((), (320, 480), ("--channels", "8"), 16, "1*L1", (70, 25)),
    "sapnet": Network((), (320, 480), (), 8, "1*SSIM", (100, 50)),
    "dsrir": Network((), (320, 480), ("--channels", "16"), 8,
                     "1*Uncertainty:restored:image+1*PSNR+0.25*PSNR:restored.1:image+0.25*PSNR:restored.2:image", (150, 30)),
    "smgarn": Network((), (160, 240), ("--channels", "16"), 16, "1*L1+1*L1:mask", (100, 20)),
    "unet": Network((), (320, 480), (), 16, "1*MSE", (25, 20)),
    "restormer": Network((), (320, 480), ("--channels", "16"), 4, "1*L1", (240, 30)),
    "nafnet": Network(("--channels", "16"), (320, 480), ("--channels", "16"), 16, "1*PSNR", (90, 30)),
}
# the framework's ways of training: flags of main.py
TRAINING = {
    "default": [],
    "bf16": ["--precision", "bf16"],
}
COMPILED_TRAINING = {                     # measured with --backends compile, because compiling takes minutes
    "compiled": ["--compile"],
    "bf16, compiled": ["--precision", "bf16", "--compile"],
}
FLAGS = ["--data_train", "photos", "--epochs", "1", "--epoch_chg", "1", "--test_every", "100", "--optimizer", "ADAM", "--weight_decay", "0",
         "--gclip_norm", "0", "--augment", "all", "--n_threads", "0", "--no-audit", "--save", "bench"]


class Setting(NamedTuple):
    """What the flags of the command select: networks, backends, small sizes (quick), and a folder for data."""
    models: tuple[str, ...]
    backends: tuple[str, ...]
    quick: bool
    folder: Path


def restoring(setting: Setting, name: str, size: tuple[int, int]) -> dict[str, Way]:
    """Return the ways of restoring an image: the network as released code applies it, and the Restorer with its backends."""
    flags, x = [*network(setting, name, NETWORKS[name].restore), "--test_only"], photo(*size)
    ways = {PLAIN: Way(lambda: applied(built(flags)[1], x))}
    for each, precision in itertools.product(("torch", *setting.backends), ("single", "bf16")):
        if (each, precision) == ("onnxruntime", "bf16"):          # it does not exist
            continue
        title = "default" if (each, precision) == ("torch", "single") else f"{each}, {precision}"
        ways[title] = Way(functools.partial(restored, flags, x, each, precision), EXACT if precision == "single" else STATED)
    return ways


def applied(method, x: Tensor) -> Callable[[], Tensor]:
    """Return a call that applies a network as published: operation by operation, channels first, eager, in float32."""
    method.to(process.device()).eval()

    @torch.no_grad()
    def call() -> Tensor:
        with plain.as_published():
            return method.predict(x.to(process.device()))["image"]
    return call


def restored(flags: list[str], x: Tensor, name: str, precision: str) -> Callable[[], Tensor]:
    """Return a call that restores an image as the framework does; raises LeftOut if the backend cannot be used or bf16 is slow."""
    if (name, precision) != ("openvino", "bf16"):                 # OpenVINO tells itself
        check(precision)
    _, method = built(flags)
    method = method.to(process.device(), memory_format=torch.channels_last).eval()
    said: list[str] = []
    if backend.choose(method, name, precision, said.append).name != name:
        raise LeftOut(said[-1].partition(", because ")[2].rpartition(";")[0])
    restorer = Restorer(method, Settings(precision=precision, backend=name))      # finds the backend open
    return lambda: restorer(x, may_tile=False)


def training(setting: Setting, name: str, patch: int, batch: int, more: dict[str, list[str]], rereads: bool = True) -> dict[str, Way]:
    """Return the ways of making a training step: a plain loop, and the Trainer with further flags.

    rereads: read a new batch for each step, as a training does; the plain loop is measured without that as well. Otherwise all steps
    have the first batch.
    """
    flags = [*network(setting, name, NETWORKS[name].train), "--loss", NETWORKS[name].loss, *reading_flags(setting, patch, batch)]
    return {PLAIN: Way(lambda: looped(flags, rereads)),
            **({"plain without reading": Way(lambda: looped(flags, False))} if rereads else {}),
            **{title: Way(functools.partial(stepped, [*flags, *own], rereads), STATED if "--precision" in own else EXACT)
               for title, own in more.items()}}


def looped(flags: list[str], rereads: bool) -> Callable[[], float]:
    """Return a call that makes a step of the plain loop."""
    args, method = built(flags)
    stage = args.stages[-1]
    method.to(process.device()).enter(stage)
    batches = whole_images(args)
    return plain.training(method, Loss(stage.loss, args).to(process.device()), batches if rereads else itertools.repeat(next(batches)),
                          args, process.device())


def stepped(flags: list[str], rereads: bool) -> Callable[[], float | Tensor]:
    """Return a call that makes a step of the Trainer; raises LeftOut if bf16 is slow."""
    args, method = built(flags)
    check(args.precision)
    run, = data.runs(args)
    trainer = Trainer(args, method, run, Path(args.dir_data, "bench"))
    stage = trainer.stages[-1]
    trainer.enter(stage)
    trainer.method.train()
    batches = plain.endless(run.train(stage))
    if not rereads:
        batches = itertools.repeat(next(batches))
    return lambda: trainer.train_step(next(batches).to(process.device()))["loss"]


def reading(setting: Setting, batches: int, patch: int, batch: int) -> dict[str, Way]:
    """Return the ways of reading training batches: decoding whole images, decoding them in the framework, and from its cache."""
    flags = ["--model", "unet", "--loss", "1*L1+1*L1:mask", *reading_flags(setting, patch, batch)]

    def of_framework(how: str) -> Callable[[], Tensor]:
        args = option.parse([*flags, "--ext", how])
        run, = data.runs(args)
        return many(plain.endless(run.train(args.stages[-1])), batches)
    return {PLAIN: Way(lambda: many(whole_images(option.parse(flags)), batches)),
            "default, --ext sep": Way(lambda: of_framework("sep")),
            "--ext img": Way(lambda: of_framework("img"))}


def many(source: Iterator[Batch], count: int) -> Callable[[], Tensor]:
    """Return a call that reads `count` batches and returns the patches of the last one."""
    return lambda: list(itertools.islice(source, count))[-1].input


def whole_images(args) -> Iterator[Batch]:
    """Return the batches of plain code for these flags."""
    stage = args.stages[-1]
    images = plain.WholeImages(Path(args.dir_data, args.data_train), tuple(sorted(loss.targets(stage.loss))), stage.patch_size, args.seed,
                               not args.no_augment)
    return plain.batches(images, loader.Draws([list(range(len(images)))], stage.batch_size, args.test_every, args.seed))


def check(precision: str) -> None:
    """Raise LeftOut for bf16 on a device without instructions for it, where it is slower than float32."""
    if precision == "bf16" and not process.has_bf16():
        raise LeftOut(SLOW_BF16)


def built(flags: list[str]):
    """Return the parsed flags and their method, whose weights depend only on the seed."""
    args = option.parse(flags)
    utility.seed_everything(args.seed, args.deterministic)
    return args, model.build(args)


def network(setting: Setting, name: str, flags: tuple[str, ...]) -> list[str]:
    """Return the flags of a network, in a quick run those of the small one that its package states."""
    tiny = [part for key, value in model.package(name).TINY.items() for part in (f"--{key}", str(value))]
    return ["--model", name, *(tiny if setting.quick else flags)]


def reading_flags(setting: Setting, patch: int, batch: int) -> list[str]:
    """Return the flags of a training on the data set of this benchmark, which is written first if it does not exist."""
    folder, count = setting.folder / "photos", 4 if setting.quick else 24
    if not folder.exists():
        rng = np.random.default_rng(0)
        for number, whole in zip(range(count), itertools.cycle(demo.photos("train").values())):
            top, left = (int(rng.integers(side - least + 1)) for side, least in zip(whole.shape, SIZE))
            clean = whole[top:top + SIZE[0], left:left + SIZE[1]]
            snowy, mask = degrade.snow(clean / 255, rng)
            for kind, pixels in (("target", clean), ("input", np.rint(snowy * 255)), ("mask", np.rint(mask * 255))):
                image.write(make_folder(folder / kind) / f"{number:02}.png", pixels.astype(np.uint8))
    device = ["--cpu"] if process.device().type == "cpu" else []
    return [*FLAGS, "--dir_data", str(setting.folder), "--data_range", f"1-{count}/{count}-{count}", "--patch_size", str(patch),
            "--batch_size", str(batch), *device]


def photo(height: int, width: int) -> Tensor:
    """Return a photo, (1, 3, height, width) in [0, 1], repeated if it is smaller."""
    whole = demo.photos("test")["coffee"]
    times = (-(-height // whole.shape[0]), -(-width // whole.shape[1]), 1)
    return image.to_tensor(np.tile(whole, times)[:height, :width])[None]
