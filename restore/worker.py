"""Restores single photos in a process of its own, which is ended when a photo takes too long or too much memory."""
import multiprocessing
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from data import image
from model import weights
from model.method import Method
from restore.restorer import DEFAULT, Restorer, Settings
from runtime import memory, process
from runtime.errors import Failure, UserError

KEPT = 3                                  # number of networks that stay in memory
TILE, OVERLAP = 512, 96
MOST = 100_000_000                        # largest number of pixels of a photo
BYTES = 40                                # bytes per pixel that a photo needs beside the network (a JPEG of 24 million pixels: 29)
SHOWN = 2048                              # longest side in pixels of the images on the page; the download has full size
START = 300.0                             # seconds in which the process must be ready
BEFORE, AFTER, RESTORED = "before.png", "after.png", "restored.png"       # the files that a restored photo leaves in its folder

Progress = Callable[[int, int], None]     # called with (finished tiles, all tiles)


class Restored(NamedTuple):
    """Size in pixels of a restored photo, the number of tiles, and the time in seconds."""
    width: int
    height: int
    tiles: int
    seconds: float


class Service:
    """Restores photos with one of several model files.

    weights: the path of each model file by its name on the page; whole: photos with more pixels are restored in tiles; typed: flags of
    a network, for the files that do not state their model (see `weights.typed_for`); settings: backend and precision.
    """

    def __init__(self, weights: dict[str, Path], whole: int, typed: dict | None = None, settings: Settings = DEFAULT):
        self.weights, self.whole, self.typed, self.settings = weights, whole, typed, settings
        self.loaded: OrderedDict[tuple[str, int], Method] = OrderedDict()

    def restore(self, photo: Path, name: str, folder: Path, progress: Progress = lambda done, count: None) -> Restored:
        """Restore a photo with the weights `name` and write it to `folder`, in full size and, before and after, as on the page.

        UserError for unknown weights and for a file that is no photo; the message contains no path of this machine.
        """
        if name not in self.weights:
            raise UserError("Please choose one of the weights in the list.")
        start, counts = time.perf_counter(), [1]              # numbers of tiles, as the Restorer reports them

        def report(done: int, count: int) -> None:
            counts.append(count)
            progress(done, count)

        pixels, free = check(photo), memory.available()
        lacking = f"The memory is too small for a photo of {pixels / 1e6:.1f} million pixels."
        if free is not None and process.device().type == "cpu" and BYTES * pixels > free:
            raise UserError(lacking)
        try:
            before = _decoded(photo)
            height, width = before.shape[:2]
            settings = self.settings._replace(chop=height * width > self.whole, tile=TILE, overlap=OVERLAP)
            restorer = Restorer(self._method(name), settings, progress=report)
            after = image.to_array(restorer(image.to_tensor(before)[None], may_tile=False)[0])
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise UserError(lacking) from error
        except Failure as error:
            raise UserError("These weights are damaged: the result is not finite.") from error
        extras = image.extras(photo)
        colours = {key: value for key, value in extras.items() if key == "icc_profile"}
        image.write(folder / RESTORED, after, extras)
        image.write(folder / BEFORE, shown(before), colours)
        image.write(folder / AFTER, shown(after), colours)
        return Restored(width, height, counts[-1], time.perf_counter() - start)

    def _method(self, name: str) -> Method:
        """Return the network of these weights; the file is read again when it has changed."""
        path = self.weights[name]
        try:
            key = (name, path.stat().st_mtime_ns)
            if key not in self.loaded:
                self.loaded[key] = weights.load(path, weights.typed_for(path, self.typed)).to(process.device())
        except (OSError, UserError) as error:
            raise UserError("These weights can no longer be read; please choose others.") from error
        self.loaded.move_to_end(key)
        while len(self.loaded) > KEPT:
            self.loaded.popitem(last=False)
        return self.loaded[key]


def check(photo: Path) -> int:
    """Return the number of pixels that a photo's header states; UserError, for the user of the page, if it is no photo or too large."""
    try:
        pixels = image.pixels(photo)
    except UserError as error:
        raise _without_path(photo, error) from error
    if pixels > MOST:
        raise UserError(f"This photo has {pixels / 1e6:.1f} million pixels; {MOST / 1e6:.0f} million is the limit.")
    return pixels


def _decoded(photo: Path) -> np.ndarray:
    try:
        return image.read(photo)
    except UserError as error:
        raise _without_path(photo, error) from error


def _without_path(photo: Path, error: UserError) -> UserError:
    reason = str(error).removeprefix(f"cannot read the image {photo}: ").partition("; replace")[0]
    return UserError(f"This file cannot be read as a photo: {reason}.")


def shown(picture: np.ndarray) -> np.ndarray:
    """Return an image, (H, W, 3) uint8, reduced to at most SHOWN pixels on its longest side."""
    height, width = picture.shape[:2]
    factor = SHOWN / max(height, width)
    if factor >= 1:
        return picture
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX, reducing_gap=2.0))


class Worker:
    """A process with a Service. It is ended when a photo takes longer than `seconds`, and the next photo gets a new one.

    `start` and `restore` are called by one thread; any thread may call `close`, which ends the process for good.
    """

    def __init__(self, weights: dict[str, Path], whole: int, cpu: bool, seconds: float, typed: dict | None = None,
                 settings: Settings = DEFAULT):
        self.weights, self.seconds, self.arguments = weights, seconds, (weights, whole, cpu, typed, settings)
        self.process: multiprocessing.process.BaseProcess | None = None
        self.lock, self.closed = threading.Lock(), False

    def start(self) -> None:
        """Start the process if it does not run; Failure if it does not become ready."""
        with self.lock:
            if self.closed:
                raise Failure("the server ends")
            if self.process and self.process.is_alive():
                return
            context = multiprocessing.get_context("spawn")        # a fork would copy the locks of this process's threads
            self.pipe, other = context.Pipe()
            self.process = context.Process(target=_work, args=(other, *self.arguments), daemon=True)
            self.process.start()
            other.close()
        try:
            assert self.pipe.poll(START) and self.pipe.recv() == "ready"
        except (AssertionError, EOFError, OSError) as error:
            self.end()
            raise Failure("the process that restores photos does not start") from error

    def restore(self, photo: Path, name: str, folder: Path, progress: Progress) -> Restored:
        """Restore a photo in the process as Service.restore does; UserError also if it takes too long or ends the process."""
        try:
            self.start()
            end = time.monotonic() + self.seconds
            self.pipe.send((photo, name, folder))
            while self.pipe.poll(max(end - time.monotonic(), 0)):
                answer = self.pipe.recv()
                if isinstance(answer, Restored):
                    return answer
                if isinstance(answer, str):
                    raise UserError(answer)
                progress(*answer)
        except Failure as error:
            raise UserError(f"This photo was not restored: {error}.") from error
        except (EOFError, OSError) as error:
            self.end()
            raise UserError("The process that restores photos was ended by the system while it restored this one; the usual reason is "
                            "that the memory is too small for a photo of this size.") from error
        self.end()
        raise UserError(f"Restoring this photo took longer than {minutes(self.seconds)} and was given up, so that other photos can be "
                        "restored; try a smaller photo or other weights.")

    def end(self) -> None:
        """End the process at once."""
        with self.lock:
            if self.process:
                self.process.kill()
                self.process.join()
                self.process = None

    def close(self) -> None:
        """End the process at once and start no other."""
        self.closed = True
        self.end()


def minutes(seconds: float) -> str:
    """Return a time in words: '90 seconds', '10 minutes'."""
    return f"{seconds:g} seconds" if seconds < 120 else f"{seconds / 60:g} minutes"


def _work(pipe, weights: dict[str, Path], whole: int, cpu: bool, typed: dict | None, settings: Settings) -> None:
    """Answer every (photo, name, folder) with the progress and a Restored, or a sentence; return when the other process has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)          # Ctrl-C reaches all processes; the other one ends this one
    with process.session(cpu, 1):
        service = Service(weights, whole, typed, settings)
        pipe.send("ready")
        while True:
            try:
                photo, name, folder = pipe.recv()
            except EOFError:
                return
            try:
                pipe.send(service.restore(photo, name, folder, lambda done, count: pipe.send((done, count))))
            except UserError as error:
                pipe.send(str(error))
            except BrokenPipeError:
                return
            except Exception as error:                    # the page goes on, whatever a photo does
                process.log().say(f"a photo was not restored: {type(error).__name__}: {error}")
                pipe.send("This photo could not be restored; the reason is in the output of the server.")
