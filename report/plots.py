"""Training curves and heat maps, drawn with matplotlib, which is imported only when something is drawn."""
from pathlib import Path

import numpy as np

from report.curves import records
from runtime.files import natural, temporary


def curves(place: Path) -> None:
    """Draw the losses and the test PSNR of log.jsonl over the epoch to curves.png and curves.pdf."""
    found = records(place)
    epochs = [r for r in found if r["event"] == "epoch"]
    tests = [r for r in found if r["event"] == "test" and "psnr" in r]
    from matplotlib.figure import Figure  # not pyplot, which needs a display and keeps state
    from matplotlib.ticker import MaxNLocator
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in sorted({name for r in epochs for name in r["losses"]}):
        points = [(r["epoch"], r["losses"][name]) for r in epochs if name in r["losses"]]
        left.plot(*zip(*points), label=name, marker="." if len(points) < 30 else None)
    for name in sorted({r["data_set"] for r in tests}, key=natural):
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
    """Draw (H, W) numbers as a PNG with one coloured pixel for each number and a colour scale."""
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
