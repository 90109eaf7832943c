"""The one way to apply a network to images of any size: whole, or in tiles where memory is short or the flags ask for them."""
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from model import tiling
from model.method import Method
from restore import memory
from runtime import process
from runtime.errors import Failure

SMALL = 512 * 512                         # pixels of a batch that is tried without an estimate of its memory
STEP, LEAST, MOST = 64, 128, 2048         # pixels: step, minimum and maximum of the tile sides that are chosen automatically
HELD = 20                                 # bytes per pixel for the result (float32, then 8 bits twice) beside network and input
TRIAL = 384                               # side in pixels of the crop on which tiles and the whole are compared
UNKNOWN = 512                             # side of tiles where memory cannot be estimated
SAME = 0.005                              # levels of 255 below which two results are called equal

Finish = Callable[[Tensor, Tensor], Tensor]


class Settings(NamedTuple):
    """How a network is applied: always in tiles (chop), the side of tiles (None: chosen by memory), their overlap in pixels,
    the x8 self-ensemble, the precision, and the memory in GiB that the process may use (0: what is available)."""
    chop: bool = False
    tile: int | None = None
    overlap: int = 96
    ensemble: bool = False
    precision: str = "single"
    memory: float = 0.0

    @classmethod
    def of(cls, args) -> "Settings":
        """Return the settings that the flags describe."""
        return cls(args.chop, args.tile, args.tile_overlap, args.self_ensemble, args.test_precision, args.memory)


DEFAULT = Settings()


class Restorer:
    """Applies a method to batches (B, 3, H, W) in [0, 1] and remembers which sizes did not fit into memory.

    finish: makes the result of each whole image from input and network answer. progress: called with (tiles done, tiles in all).
    `tiled` lists the tile side used for each image that was tiled, `notes` the lines written to the log.
    """

    def __init__(self, method: Method, settings: Settings = DEFAULT, finish: Finish | None = None,
                 progress: Callable[[int, int], None] | None = None):
        self.method, self.settings, self.finish, self.progress = method.eval(), settings, finish, progress
        self.device = next((parameter.device for parameter in method.parameters()), process.device())
        self.too_large = float("inf")     # pixels of the smallest batch that did not fit
        self.side = self.most = settings.tile or MOST
        self.per_pixel: float | None = None
        self.measured = self.compared = False
        self.tiled: list[int] = []
        self.notes: list[str] = []

    @torch.inference_mode()
    def __call__(self, x: Tensor, may_tile: bool = True, name: str = "an image") -> Tensor:
        """Return the restored (B, 3, H, W) float32, on the device, or on the CPU where it was tiled; not clipped.

        may_tile: tile also without --chop, where memory is short; scored tests say no. `name` is the image's, for messages.
        Failure: the result is not finite.
        """
        while True:
            whole = self._whole_at_once(x, may_tile)
            if not whole and len(x) > 1:
                return torch.cat([self(each, may_tile, name).cpu() for each in x.split(1)])
            try:
                y = self._apply(x, name) if whole else self._in_tiles(x, may_tile, name)
                if whole and self.progress:
                    self.progress(1, 1)
                return y if self.finish is None else _finished(self.finish, x, y)
            except (MemoryError, RuntimeError) as error:
                if not may_tile or self.settings.chop or not memory.lacks(error) or (not whole and self.side <= LEAST):
                    raise
            self._shrink(x, whole)        # outside the except block, since the error's frames hold tensors

    def _whole_at_once(self, x: Tensor, may_tile: bool) -> bool:
        """Return whether a batch is computed in one piece: the only place where that is decided."""
        if self.settings.chop:
            return max(x.shape[-2:]) <= self.most
        return not may_tile or self._fits(x)

    def _fits(self, x: Tensor) -> bool:
        """Return whether to try a batch in one piece: no smaller one has failed, and the estimate allows it."""
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
        """Return the bytes that the network may use while this batch, which is in memory already, waits; None if unknown."""
        free = memory.available(self.settings.memory)
        if free is None or process.device().type == "cuda":
            return None if free is None else free * memory.SHARE
        return free * memory.SHARE - HELD * x.shape[0] * x.shape[-2] * x.shape[-1]

    def _measure(self) -> None:
        """Estimate the network's memory per pixel, once."""
        if not self.measured:
            self.measured = True
            try:
                self.per_pixel = memory.per_pixel(self._apply)
            except (MemoryError, RuntimeError) as error:
                if not memory.lacks(error):
                    raise

    def _shrink(self, x: Tensor, whole: bool) -> None:
        """Remember that a batch, or a tile, was too large for the memory."""
        if process.device().type == "cuda":
            torch.cuda.empty_cache()
        if whole:
            self.too_large = x.shape[0] * x.shape[-2] * x.shape[-1]
            if len(x) == 1:
                self._say(f"the memory is too small for {x.shape[-1]}x{x.shape[-2]} pixels in one piece; images of this size and "
                          "larger are restored in tiles")
        else:
            self.most = max(self.side // 2 // STEP * STEP, LEAST)
            self._say(f"the memory is too small for tiles of {self.side}; from now on they are at most {self.most}")

    def _apply(self, x: Tensor, name: str = "an image") -> Tensor:
        """Return the network's answer for a batch in one piece, on the device; Failure: it is not finite."""
        with process.autocast(self.settings.precision), process.exact_convolutions():
            x = x.to(self.device)
            y = (tiling.ensemble(x, self.method.restore) if self.settings.ensemble else self.method.restore(x)).float()
        if not y.sum().isfinite() and not y.isfinite().all():
            raise Failure(f"the network's output for {name} is not finite in the precision {self.settings.precision}; the weights are "
                          "damaged, or the precision is too low: try --test_precision single")
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
            if self.progress:
                self.progress(done, count)
            return result

        y = tiling.tiled(x, restored, self.side, overlap)
        self.tiled += [self.side] * (max(x.shape[-2:]) > self.side)
        return y

    def _largest(self, x: Tensor) -> int:
        """Return the largest side of tiles that the estimate allows."""
        self._measure()
        room = self._room(x)
        if not self.per_pixel or room is None:
            return UNKNOWN if self.most == MOST else self.most
        return max(int((max(room, 0) / self.per_pixel) ** 0.5) // STEP * STEP, LEAST)

    def _compare(self, x: Tensor, overlap: int) -> None:
        """Write to the log, once, by how much tiles differ from the whole, measured on a crop from the middle of an image."""
        if self.compared:
            return
        self.compared = True
        size = min(*x.shape[-2:], TRIAL, self.side)
        top, left = ((side - size) // 2 for side in x.shape[-2:])
        part, shared = x[:1, :, top:top + size, left:left + size], min(overlap, size // 3)
        four = tiling.tiled(part, lambda each: self._apply(each).cpu(), -(-(size + shared) // 2), shared)
        levels = (four.clamp(0, 1) - self._apply(part).cpu().clamp(0, 1)).abs().mean().item() * 255
        what = "differ from" if levels > SAME else "give the same as"
        self._say(f"tiles of {self.side}, overlap {overlap}, {what} whole images: the mean difference is {levels:.3f} levels of 255 "
                  f"on {size}x{size} pixels in 4 tiles")

    def _say(self, text: str) -> None:
        self.notes.append(text)
        process.log().say(text)


def _finished(finish: Finish, x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([finish(rainy, answer.to(rainy.device)) for rainy, answer in zip(x.split(1), y.split(1))])
