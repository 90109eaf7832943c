"""The progress of a training: one bar for all of its steps, lines by time, and what the whole training costs."""
import datetime
import time
from collections import deque

from tqdm import tqdm

from runtime import process
from runtime.progress import duration

WARM = 3                                  # steps that are not timed, because the first ones are slower
KNOWN = (5, 20.0)                         # timed steps and seconds after which the cost is stated
RECENT = 200                              # steps from which the speed is computed
LINES = ((600.0, 60.0), (float("inf"), 600.0))        # until this time there is a line at least this often, both in seconds
DAY = 86400.0


class Pace:
    """Counts the steps of a training.

    name: what the bar shows. plan: (steps, pixels of a batch) of each stage, from which the time of a step in a later stage is
    estimated. done: steps made before this start. kept: whether the training has a log; lines are printed only then. epochs: the
    number of epochs of the plan. quicker: flags with which a step takes less time.
    """

    def __init__(self, name: str, plan: list[tuple[int, int]], done: int, kept: bool, epochs: int, quicker: tuple[str, ...] = ()):
        self.plan, self.done, self.kept, self.epochs, self.quicker = plan, done, kept, epochs, quicker
        self.begun = self.last = self.spoken = time.monotonic()
        self.took: deque[float] = deque(maxlen=RECENT)
        self.steps, self.timed, self.stated = 0, 0.0, False
        self.bar = tqdm(desc=name, total=sum(steps for steps, _ in plan), initial=done, unit="step", disable=process.quiet(), leave=False)

    def __enter__(self) -> "Pace":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def restart(self) -> None:
        """Begin to measure time, after something that is no step, such as a test."""
        self.last = time.monotonic()

    def spoke(self) -> None:
        """Record that the log has just had a line about a step."""
        self.spoken = time.monotonic()

    def step(self, where: str, loss: float) -> None:
        """Count one step; where: its epoch and number in words."""
        now = time.monotonic()
        self.steps, self.done = self.steps + 1, self.done + 1
        if self.steps > WARM:
            self.took.append(now - self.last)
            self.timed += now - self.last
        self.last = now
        self.bar.set_postfix_str(f"{where}, loss {loss:.4g}", refresh=False)
        self.bar.update()
        if not self.kept or len(self.took) < KNOWN[0]:
            return
        if not self.stated and self.timed > KNOWN[1]:
            self.stated = True
            process.log().say(self._cost(), keep=False)
        passed = now - self.begun
        if now - self.spoken > next(often for until, often in LINES if passed <= until):
            self.spoken = now
            process.log().say(f"[{where}] loss {loss:.5g}, {self._speed():.3g} steps/s, {duration(self.left())} left", keep=False)

    def left(self) -> float:
        """Return the estimated seconds of the steps that are left, without tests; a step's time is in proportion to its pixels."""
        pixels, end, here = 0, 0, 0
        for steps, size in self.plan:
            if not here and self.done < end + steps:
                here = size
            pixels += max(min(end + steps - self.done, steps), 0) * size
            end += steps
        return pixels / (here or 1) / self._speed()

    def _speed(self) -> float:
        return len(self.took) / max(sum(self.took), 1e-9)

    def _cost(self) -> str:
        """Return what the training takes, and above a day what would shorten it."""
        left = self.left()
        end = (datetime.datetime.now() + datetime.timedelta(seconds=left)).strftime("%Y-%m-%d %H:%M")
        total = sum(steps for steps, _ in self.plan)
        text = (f"at {self._speed():.3g} steps/s the {total - self.done:,} steps that are left take about {duration(left)}, tests not "
                f"included, until about {end}")
        ways = [f"{' or '.join(self.quicker)} shortens a step"] if self.quicker else []
        if self.epochs > 1 and self.done == self.steps:           # a resumed training keeps its epochs
            ways.insert(0, f"--epochs {max(int(self.epochs * DAY / left), 1)} would take about a day")
        return "; ".join([text, *ways] if left > DAY else [text])


class Cost:
    """Says once, after the first epochs of the first image, how long all `images` take, if each takes as long as `epochs` such epochs."""

    FROM, TO = 2, 6                       # the epochs between which the time is measured

    def __init__(self, epochs: float):
        self.epochs, self.images, self.begun, self.said = epochs, 0, 0.0, False

    def before_epoch(self, epoch: int) -> None:
        """Measure the time; `epoch` counts from 0."""
        if epoch == self.FROM:
            self.begun = time.monotonic()
        elif epoch == self.TO and not self.said:
            self.said = True
            seconds = (time.monotonic() - self.begun) / (self.TO - self.FROM) * self.epochs
            more = f", all {self.images} about {duration(seconds * self.images)}" if self.images > 1 else ""
            process.log().say(f"the training for an image takes about {duration(seconds)}{more}", keep=False)
