"""The curves of a training: their values from log.jsonl, and line charts as inline SVG, coloured by the page's style sheet."""
import json
import math
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import NamedTuple, TypeVar

from report.page import CHANNELS

WIDTH, HEIGHT = 390, 220                  # of a chart in SVG units; text is 11 units high
LEFT, TOP, BOTTOM = 46, 12, 34            # margins
POINTS = 400                              # greatest number of points of a line
LETTER = 5.8                              # mean width of a letter in SVG units
LINES = 6                                 # number of line styles in style.css; further lines use the last one
MOST = 1e100                              # larger values are left out
Line = list[tuple[float, float]]
Record = TypeVar("Record")


class Scores(NamedTuple):
    """Test PSNR by one measurement: its name as in the table, the curves by data set, and the PSNR of the inputs by data set."""
    measurement: str
    lines: dict[str, Line]
    inputs: dict[str, float]


def records(folder: Path) -> list[dict]:
    """Return the records of log.jsonl about epochs, tests and the best epoch.

    Damaged lines are left out, such as the last one of a killed process.
    """
    return read_lines(folder / "log.jsonl", _record)


def read_lines(path: Path, record: Callable[[str], list[Record]]) -> list[Record]:
    """Return the records of a file of JSON lines; `record` returns [record] for a line that counts, else []. [] without the file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [each for line in lines for each in record(line)]


def _record(line: str) -> list[dict]:
    """Return [record] for a line about an epoch, a test or the best epoch, [] for any other line and for a damaged one."""
    try:
        record = json.loads(line)
        event = record["event"]
        if event == "best":
            return [record] if isinstance(record["chosen"], str) and isinstance(record["weights"], str) else []
        about = record["losses"] if event == "epoch" else {record["data_set"]: record.get("psnr", 0), "": record.get("input_psnr", 0)}
        final = event == "test" and record["epoch"] is None
        fits = (event in ("epoch", "test") and (final or (type(record["epoch"]) is int and 0 < record["epoch"] <= 10**9))
                and all(isinstance(name, str) and abs(value) < MOST for name, value in about.items()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return [record] if fits else []


def losses(found: list[dict]) -> dict[str, Line]:
    """Return the curves of the training loss and its terms."""
    lines: dict[str, Line] = {}
    for record in found:
        if record["event"] == "epoch":
            for name, value in record["losses"].items():
                lines.setdefault(name, []).append((record["epoch"], value))
    return lines


def scores(found: list[dict]) -> list[Scores]:
    """Return the curves of the test PSNR, and the PSNR of the inputs from a final test of the same images by the same protocol."""
    found = [record for record in found if record["event"] == "test" and "psnr" in record]
    final = {(measurement(each), each["data_set"], str(each.get("subset"))): each.get("input_psnr") for each in found
             if each["epoch"] is None}
    groups: dict[str, Scores] = {}
    for record in found:
        if record["epoch"] is not None:
            how, name = measurement(record), record["data_set"]
            group = groups.setdefault(how, Scores(how, {}, {}))
            group.lines.setdefault(name, []).append((record["epoch"], record["psnr"]))
            before = final.get((how, name, str(record.get("subset"))))
            group.inputs.update({name: before} if before is not None else {})
    return list(groups.values())


def measurement(record: dict) -> str:
    """Return how a PSNR was measured: the protocol's name and version and the channel, as in the table."""
    protocol = record.get("protocol")
    if not isinstance(protocol, dict):
        return ""
    channel = str(record.get("channel"))
    return f"{protocol.get('name')} v{protocol.get('version')}, {CHANNELS.get(channel, channel)}"


def distinct(lines: dict[str, Line]) -> dict[str, Line]:
    """Return the lines, of which equal ones are one line with all names, as in `loss = L1`."""
    names: dict[tuple, list[str]] = {}
    for name, line in lines.items():
        names.setdefault(tuple(line), []).append(name)
    return {" = ".join(found): list(line) for line, found in names.items()}


def chart(title: str, unit: str, lines: dict[str, Line], bases: dict[str, float] | None = None) -> str:
    """Return a figure with named lines over the epoch, each labelled with its name and its last value; '' without points.

    Equal lines are drawn once. bases: named values that are drawn as dotted horizontal lines, to compare the lines with.
    """
    lines = {name: thinned(line) for name, line in distinct({name: line for name, line in lines.items() if line}).items()}
    if not lines:
        return ""
    own, first = len(lines), min(line[0][0] for line in lines.values())
    lines |= distinct({name: [(first, value)] for name, value in (bases or {}).items()})
    labels = {name: f"{shortened(name)} {number(line[-1][1])}" for name, line in lines.items()}
    right = WIDTH - 14 - LETTER * max(map(len, labels.values()))
    epochs = [x for line in lines.values() for x, _ in line]
    values = [y for line in lines.values() for _, y in line]
    x_ticks, y_ticks = ticks(min(epochs), max(epochs), 6, whole=True), ticks(min(values), max(values), 5)
    low, high = min(y_ticks[0], min(values)), max(y_ticks[-1], max(values))

    def across(x: float) -> float:
        return LEFT + (right - LEFT) * ((x - min(epochs)) / (max(epochs) - min(epochs)) if max(epochs) > min(epochs) else 0.5)

    def up(y: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / (high - low)

    parts = [f'<line class="grid" x1="{LEFT}" x2="{right:.1f}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>'
             f'<text class="tick" x="{LEFT - 7}" y="{up(y) + 3.8:.1f}" text-anchor="end">{number(y, y_ticks[1] - y_ticks[0])}</text>'
             for y in y_ticks]
    parts += [f'<text class="tick" x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:g}</text>' for x in x_ticks]
    parts.append(f'<text class="axis" x="{(LEFT + right) / 2:.1f}" y="{HEIGHT - 3}" text-anchor="middle">epoch</text>')
    heights = apart([up(line[-1][1]) for line in lines.values()], 13, TOP + 4, HEIGHT - BOTTOM)
    for place, (name, line) in enumerate(lines.items()):
        kind = f"line{min(place, LINES - 1)}" if place < own else "base"
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line) if place < own else (
            f"{LEFT},{up(line[0][1]):.1f} {right:.1f},{up(line[0][1]):.1f}")
        if len(line) > 1 or place >= own:
            parts.append(f'<polyline class="{kind}" points="{path}"/>')
        for x, y in () if place >= own else line if len(line) < 30 else line[-1:]:
            parts.append(f'<circle class="{kind}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.4">'
                         f"<title>{escape(name)}, epoch {x:g}: {number(y)}</title></circle>")
        parts.append(f'<text class="label {kind}" x="{right + 8:.1f}" y="{heights[place] + 3.8:.1f}">{escape(labels[name])}</text>')
    about = f"{title} by epoch: " + "; ".join(f"{name} from {number(line[0][1])} to {number(line[-1][1])}" for name, line in lines.items())
    return (f'<figure class="chart"><figcaption>{escape(title)}{f" <span>{escape(unit)}</span>" if unit else ""}</figcaption>'
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(about)}">{"".join(parts)}</svg></figure>')


def thinned(line: Line) -> Line:
    """Return at most POINTS points of a line, including the last point."""
    step = math.ceil(len(line) / POINTS)
    return line[::-1][::step][::-1]


def shortened(name: str) -> str:
    """Return a name cut to at most 20 characters."""
    return name if len(name) <= 20 else f"{name[:19]}…"


def number(value: float, step: float | None = None) -> str:
    """Return a number as text, with the digits that the distance `step` between ticks needs, else with four significant digits."""
    if step is not None:
        text = f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}" if 1e-5 < step < 1e6 else f"{value:.1e}"
    else:
        text = f"{value:.2f}" if 10 <= abs(value) < 1e4 else f"{value:.4g}"
    return text.replace("-", "−")


def ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """Return about `count` round numbers from at most `low` to at least `high` (`whole`: whole numbers between them)."""
    if high <= low and not whole:
        low, high = low - (abs(low) or 1) * 0.05, high + (abs(high) or 1) * 0.05
    raw = max((high - low) / count, 1e-12)
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(round_step * scale for round_step in (1, 2, 5, 10) if round_step * scale >= raw * 0.999)
    if whole:
        step = max(1, round(step))
        return list(range(math.ceil(low / step) * step, math.floor(high) + 1, step))
    return [number * step for number in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def apart(heights: list[float], gap: float, top: float, bottom: float) -> list[float]:
    """Return the heights shifted until neighbours are at least `gap` apart, in the same order, between `top` and about `bottom`."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    moved = list(heights)
    for before, place in zip([None, *order], order):
        moved[place] = max(moved[place], top if before is None else moved[before] + gap)
    over = max(0.0, moved[order[-1]] - bottom)
    for after, place in zip([None, *order[::-1]], order[::-1]):
        moved[place] = moved[place] - over if after is None else min(moved[place], moved[after] - gap)
    return moved
