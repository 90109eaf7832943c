"""How far a long work is: a bar on a terminal, elsewhere a line every half minute, both with the time that remains."""
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from runtime import process

UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))       # seconds of a unit, and the smaller unit below it
EVERY = 30.0                              # seconds between two lines
T = TypeVar("T")


class Progress:
    """Shows on stderr how much of a work is done; use it as a context. Only the first process shows anything.

    what: the work in words; count: the number of its pieces, called `unit`; total: the size of all pieces, by which the time that
    remains is estimated. A piece may consist of tiles, which count as parts of it.
    """

    def __init__(self, what: str, count: int, unit: str, total: float = 0, clock: Callable[[], float] = time.monotonic):
        self.what, self.count, self.unit, self.total, self.clock = what, count, unit, total or count, clock
        self.pieces, self.finished, self.size, self.tile = 0, 0.0, 0.0, ""
        self.begun = self.shown = clock()
        self.bar = tqdm(total=self.total, desc=what, disable=process.quiet(), leave=False, smoothing=0,
                        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} remaining")
        self.in_lines = self.bar.disable and process.rank() == 0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()
        self.in_lines = False

    def each(self, pieces: Iterable[T]) -> Iterator[T]:
        """Yield pieces of equal size; each is finished when the next one is asked for."""
        with self:
            for piece in pieces:
                self.begin()
                yield piece
                self.end()

    def begin(self, size: float = 1) -> None:
        """Say the size of the piece, or pieces, that are computed now."""
        self.size = size
        self._show(self.finished)

    def tiles(self, done: int, count: int) -> None:
        """Say that `done` of the `count` tiles of this piece are finished (the Restorer calls this)."""
        if count > 1:
            self.tile = f", tile {done} of {count}"
            self._show(self.finished + self.size * done / count)

    def end(self, pieces: int = 1) -> None:
        """Say that `pieces` pieces, of the size that `begin` stated in all, are finished."""
        self.finished, self.pieces, self.size, self.tile = self.finished + self.size, self.pieces + pieces, 0.0, ""
        self._show(self.finished)

    def _show(self, done: float) -> None:
        text = f"{self.what}: {self.pieces} of {self.count} {self.unit}{self.tile}"
        self.bar.set_description_str(text, refresh=False)
        self.bar.update(done - self.bar.n)
        now = self.clock()
        if self.in_lines and now - self.shown >= EVERY:
            self.shown = now
            left = f", about {duration((now - self.begun) * (self.total - done) / done)} remaining" if done else ""
            tqdm.write(f"{text}, {done / self.total:.0%}{left}", file=sys.stderr)
            sys.stderr.flush()


def duration(seconds: float) -> str:
    """Return a duration in words, with two units at most: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    for size, unit, small, smaller in UNITS:
        if seconds >= size:
            whole, rest = divmod(round(seconds / small), size // small)
            return f"{whole} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
