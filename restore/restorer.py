"""Applies a network to images of any size: whole, or in tiles if memory is short or the flags require tiles."""
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from model import tiling
from model.method import Method
from restore import backend
from runtime import memory, process
from runtime.errors import Failure

SMALL = 512 * 512                         # batches of up to this many pixels are computed without an estimate of memory
STEP, MIN_SIDE, MAX_SIDE = 64, 128, 2048  # step, minimum and maximum of automatically chosen tile sides, in pixels
RESULT_BYTES = 20                         # bytes per pixel of the result (float32, then two 8-bit copies), besides network and input
COMPARED_SIDE = 384                       # maximum side in pixels of the crop on which tiles are compared with the whole
DEFAULT_SIDE = 512                        # side of tiles if memory cannot be estimated
EQUAL_BELOW = 0.005                       # mean difference in levels of 255 up to which results are reported as equal

Finish = Callable[[Tensor, Tensor], Tensor]


class Settings(NamedTuple):
    """How a network is applied: always in tiles (chop), tile side in pixels (None: chosen by memory), overlap in pixels,
    x8 self-ensemble, precision, memory in GiB that the process may use (0: all that is available), the number of pixels above which
    an image is restored in tiles even if it fits into the memory (0: none is), and backend."""
    chop: bool = False
    tile: int | None = None
    overlap: int = 96
    ensemble: bool = False
    precision: str = "single"
    memory: float = 0.0
    whole: int = 0
    backend: str = "torch"

    @classmethod
    def of(cls, args) -> "Settings":
        """Return the settings that the flags describe."""
        return cls(args.chop, args.tile, args.tile_overlap, args.self_ensemble, args.test_precision, args.memory, round(args.whole * 1e6),
                   args.backend)


DEFAULT = Settings()


class Restorer:
    """Applies a method to batches (B, 3, H, W) in [0, 1] and remembers which sizes did not fit into memory.

    finish: computes the result of each whole image from input and network output. progress: called with (finished tiles,
    all tiles). `tiled` lists the tile side of each tiled image, `notes` the lines written to the log.
    """

    def __init__(self, method: Method, settings: Settings = DEFAULT, finish: Finish | None = None,
                 progress: Callable[[int, int], None] = lambda done, count: None):
        self.method, self.settings, self.finish, self.progress = method.eval(), settings, finish, progress
        self.device = next((parameter.device for parameter in method.parameters()), process.device())
        self.too_large = float("inf")     # pixels of the smallest batch that did not fit
        self.side = self.most = settings.tile or MAX_SIDE
        self.per_pixel: float | None = None
        self.measured = self.compared = False
        self.tiled: list[int] = []
        self.notes: list[str] = []
        self.backend = backend.choose(self.method, settings.backend, settings.precision, process.log().say)

    @torch.inference_mode()
    def __call__(self, x: Tensor, may_tile: bool = True, name: str = "an image") -> Tensor:
        """Return the restored batch (B, 3, H, W) float32, not clipped, on the device, or on the CPU if it was tiled or split.

        may_tile: allow tiles without --chop if memory is short; False in scored tests. name: name of the image for messages.
        Raises Failure if the result is not finite.
        """
        while True:
            whole = self._whole_at_once(x, may_tile)
            if not whole and len(x) > 1:
                return torch.cat([self(each, may_tile, name).cpu() for each in x.split(1)])
            try:
                y = self._apply(x, name) if whole else self._in_tiles(x, may_tile, name)
                if whole:
                    self.progress(1, 1)
                return y if self.finish is None else _finished(self.finish, x, y)
            except (MemoryError, RuntimeError) as error:
                if not may_tile or self.settings.chop or not memory.lacks(error) or (not whole and self.side <= MIN_SIDE):
                    raise
            self._shrink(x, whole)        # outside the except block, because the traceback of the error keeps tensors in memory

    def _whole_at_once(self, x: Tensor, may_tile: bool) -> bool:
        """Return whether to compute a batch in one piece; no other function decides this."""
        if self.settings.chop:
            return max(x.shape[-2:]) <= self.most
        if may_tile and 0 < self.settings.whole < x.shape[-2] * x.shape[-1]:
            return False
        return not may_tile or self._fits(x)

    def _fits(self, x: Tensor) -> bool:
        """Return whether to try a batch in one piece: no smaller batch has failed, and the estimate of memory allows it."""
        pixels = x.shape[0] * x.shape[-2] * x.shape[-1]
        if pixels >= self.too_large:
            return False
        if pixels <= SMALL:
            return True
        self._measure()
        room = self._room(x)
        if self.per_pixel is None or room is None or self.per_pixel * pixels <= room:
            return True
        self.too_large = pixels
        self._say(f"images from {x.shape[-1]}x{x.shape[-2]} pixels are restored in tiles: in one piece they would need about "
                  f"{self.per_pixel * pixels / 2**30:.1f} GiB, and {max(room, 0) / 2**30:.1f} GiB are available")
        return False

    def _room(self, x: Tensor) -> float | None:
        """Return the bytes that the network may use for this batch, which is already in memory; None if unknown."""
        self.backend.release()
        free = memory.available(self.settings.memory)
        if free is None or process.device().type == "cuda":
            return None if free is None else free * memory.SHARE
        return free * memory.SHARE - RESULT_BYTES * x.shape[0] * x.shape[-2] * x.shape[-1]

    def _measure(self) -> None:
        """Measure the network's memory use per pixel once."""
        if not self.measured:
            self.measured = True
            try:
                self.per_pixel = memory.per_pixel(self._apply, self.backend.release)
            except (MemoryError, RuntimeError) as error:
                if not memory.lacks(error):
                    raise

    def _shrink(self, x: Tensor, whole: bool) -> None:
        """Record that a batch or a tile was too large for the memory."""
        if process.device().type == "cuda":
            torch.cuda.empty_cache()
        if whole:
            self.too_large = x.shape[0] * x.shape[-2] * x.shape[-1]
            if len(x) == 1:
                self._say(f"the memory is too small for {x.shape[-1]}x{x.shape[-2]} pixels in one piece; images of this size and "
                          "larger are restored in tiles")
        else:
            self.most = max(self.side // 2 // STEP * STEP, MIN_SIDE)
            self._say(f"the memory is too small for tiles of {self.side}; the next tiles have a side of at most {self.most}")

    def _apply(self, x: Tensor, name: str = "an image", run: tiling.Restore | None = None) -> Tensor:
        """Return the output of the backend, or of `run`, for a batch in one piece, on the device; raises Failure if it is not finite."""
        run = run or self.backend.run
        with process.autocast(self.settings.precision), process.exact_convolutions():
            x = x.to(self.device)
            y = (tiling.ensemble(x, run) if self.settings.ensemble else run(x)).float()
        if not y.sum().isfinite() and not y.isfinite().all():
            advice = "" if self.settings.precision == "single" else ", or the precision is too low: try --test_precision single"
            raise Failure(f"the network's output for {name} is not finite in the precision {self.settings.precision}; the weights are "
                          f"damaged{advice}")
        return y

    def _in_tiles(self, x: Tensor, may_tile: bool, name: str) -> Tensor:
        self.side = self.most if self.settings.chop else min(self.most, self._largest(x))
        overlap = min(self.settings.overlap, self.side // 2)
        if may_tile and max(x.shape[-2:]) > self.side:
            self._compare(x, overlap)
        count, done = tiling.tiles(x.shape[-2], x.shape[-1], self.side, overlap), 0

        def restored(part: Tensor) -> Tensor:
            nonlocal done
            result, done = self._apply(part, name).cpu(), done + 1
            self.progress(done, count)
            return result

        y = tiling.tiled(x, restored, self.side, overlap)
        self.tiled += [self.side] * (max(x.shape[-2:]) > self.side)
        return y

    def _largest(self, x: Tensor) -> int:
        """Return the largest tile side that the estimate of memory allows."""
        self._measure()
        room = self._room(x)
        if not self.per_pixel or room is None:
            return DEFAULT_SIDE if self.most == MAX_SIDE else self.most
        return max(int((max(room, 0) / self.per_pixel) ** 0.5) // STEP * STEP, MIN_SIDE)

    def _compare(self, x: Tensor, overlap: int) -> None:
        """Log once the mean difference between tiled and whole results of PyTorch, measured on a crop from the centre of an image.

        Another backend would compile programs for these sizes, torch.compile for minutes.
        """
        if self.compared:
            return
        self.compared = True
        size = min(*x.shape[-2:], COMPARED_SIDE, self.side)
        top, left = ((side - size) // 2 for side in x.shape[-2:])
        part, shared = x[:1, :, top:top + size, left:left + size], min(overlap, size // 3)
        whole, four = (tiling.tiled(part, lambda each: self._apply(each, run=self.method.restore).cpu(), side, shared)
                       for side in (size, -(-(size + shared) // 2)))
        levels = (four.clamp(0, 1) - whole.clamp(0, 1)).abs().mean().item() * 255
        what = "differ from" if levels > EQUAL_BELOW else "give the same as"
        self._say(f"tiles of {self.side}, overlap {overlap}, {what} whole images: the mean difference is {levels:.3f} levels of 255 "
                  f"on {size}x{size} pixels in 4 tiles")

    def _say(self, text: str) -> None:
        self.notes.append(text)
        process.log().say(text)


def _finished(finish: Finish, x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([finish(rainy, answer.to(rainy.device)) for rainy, answer in zip(x.split(1), y.split(1))])
