"""Restoring pictures of any size: whole where memory allows it, else in tiles that wait on the CPU."""
import torch
from torch import Tensor

from model import tiling
from model.method import Method
from restore import memory
from runtime import process
from runtime.errors import Failure

SMALL = 512 * 512                         # pixels that are always tried at once; above, what a network needs is measured
STEP, LEAST, MOST = 64, 128, 2048         # of the sides that --tile auto chooses from
HELD = 20                                 # bytes a pixel that a picture takes beside network and input: the result, twice in 8 bits
TRIAL = 384                               # side of the picture on which whole and tiles are compared
UNKNOWN = 512                             # side of tiles where memory cannot be estimated
SAME = 0.005                              # levels below which they count as equal


class Restorer:
    """Restores (B, 3, H, W) on the CPU by the flags, and learns for which sizes the memory is too small.

    With --chop always in tiles of --tile. Else whole, unless an estimate or an error says that memory lacks: then in
    tiles, and so is every picture that is as large, without another try. `tiled` are the sides of the tiles used, one
    for each picture; `notes` what was said.
    """

    def __init__(self, method: Method, args):
        self.method, self.args = method, args
        self.too_large = float("inf")     # pixels of the smallest batch that did not fit
        self.side = self.most = args.tile if args.chop or args.tile_given else MOST
        self.per_pixel: float | None = None
        self.measured = self.compared = False
        self.tiled: list[int] = []
        self.notes: list[str] = []

    def __call__(self, x: Tensor) -> Tensor:
        """Return the restored (B, 3, H, W), where it was computed: on the device, or on the CPU for tiles. Failure: not finite."""
        while True:
            whole = max(x.shape[-2:]) <= self.args.tile if self.args.chop else self._fits(x)
            if not whole and len(x) > 1:
                return torch.cat([self(each).cpu() for each in x.split(1)])
            try:
                return self._whole(x) if whole else self._in_tiles(x)
            except (MemoryError, RuntimeError) as error:
                if self.args.chop or not memory.lacks(error) or not whole and self.side <= LEAST:
                    raise
            self._shrink(x, whole)        # out of the except block: the error's frames hold tensors

    def _fits(self, x: Tensor) -> bool:
        """Return whether a batch is to be tried at once: no smaller one has failed, and the estimate allows it."""
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
        self._say(f"pictures from {x.shape[-1]}x{x.shape[-2]} are restored in tiles: whole they would take about "
                  f"{self.per_pixel * pixels / 2**30:.1f} GiB, {max(room, 0) / 2**30:.1f} GiB can be used")
        return False

    def _room(self, x: Tensor) -> float | None:
        """Return the bytes that the network may take while this batch, which is in memory already, waits."""
        free = memory.available(self.args.memory)
        if free is None or process.device().type == "cuda":
            return None if free is None else free * memory.SHARE
        return free * memory.SHARE - HELD * x.shape[0] * x.shape[-2] * x.shape[-1]

    def _measure(self) -> None:
        if not self.measured:
            self.measured = True
            try:
                self.per_pixel = memory.per_pixel(self._whole)
            except (MemoryError, RuntimeError) as error:
                if not memory.lacks(error):
                    raise

    def _shrink(self, x: Tensor, whole: bool) -> None:
        """Take note that a batch, or a tile, was too large."""
        if process.device().type == "cuda":
            torch.cuda.empty_cache()
        if whole:
            self.too_large = x.shape[0] * x.shape[-2] * x.shape[-1]
            if len(x) == 1:
                self._say(f"the memory is too small for {x.shape[-1]}x{x.shape[-2]} at once: pictures from this size on are "
                          "restored in tiles")
        else:
            self.most = max(self.side // 2 // STEP * STEP, LEAST)
            self._say(f"the memory is too small for tiles of {self.side}; they are at most {self.most} from now on")

    def _whole(self, x: Tensor) -> Tensor:
        fn = self.method.restore
        with process.autocast(self.args.test_precision), process.exact_convolutions():
            x = x.to(process.device())
            y = (tiling.ensemble(x, fn) if self.args.self_ensemble else fn(x)).float()
        if not y.sum().isfinite() and not y.isfinite().all():
            raise Failure(f"is not finite in the precision {self.args.test_precision}; the weights are bad, "
                          "or --test_precision single would do")
        return y

    def _in_tiles(self, x: Tensor) -> Tensor:
        self.side = self.most if self.args.chop else min(self.most, self._largest(x))
        overlap = min(self.args.tile_overlap, self.side // 2)
        if max(x.shape[-2:]) > self.side:
            self._compare(x, overlap)
        y = tiling.tiled(x, lambda part: self._whole(part).cpu(), self.side, overlap)
        self.tiled += [self.side] * (max(x.shape[-2:]) > self.side)
        return y

    def _largest(self, x: Tensor) -> int:
        """Return the largest suitable side of a tile."""
        self._measure()
        room = self._room(x)
        if not self.per_pixel or room is None:
            return UNKNOWN if self.most == MOST else self.most
        return max(int((max(room, 0) / self.per_pixel) ** 0.5) // STEP * STEP, LEAST)

    def _compare(self, x: Tensor, overlap: int) -> None:
        """Say, once, by how much tiles differ from the whole, on a square from the middle of a picture in four tiles."""
        if self.compared:
            return
        self.compared = True
        size = min(*x.shape[-2:], TRIAL, self.side)
        top, left = ((side - size) // 2 for side in x.shape[-2:])
        part, shared = x[:1, :, top:top + size, left:left + size], min(overlap, size // 3)
        four = tiling.tiled(part, lambda each: self._whole(each).cpu(), -(-(size + shared) // 2), shared)
        levels = (four.clamp(0, 1) - self._whole(part).cpu().clamp(0, 1)).abs().mean().item() * 255
        what = "differ from" if levels > SAME else "give the same as"
        self._say(f"tiles of {self.side}, overlap {overlap}, {what} whole images: the mean difference is {levels:.3f} levels of 255 "
                  f"on {size}x{size} pixels in 4 tiles")

    def _say(self, text: str) -> None:
        self.notes.append(text)
        process.log().say(text)
