"""Training curves and heat maps, drawn with matplotlib, which is imported only when something is drawn."""
from pathlib import Path

import numpy as np

from report.curves import distinct, losses, records, scores
from runtime.files import temporary


def curves(place: Path) -> None:
    """Draw the losses and the test PSNR of log.jsonl over the epoch, equal curves once, to curves.png and curves.pdf."""
    found = records(place)
    from matplotlib.figure import Figure  # not pyplot, which needs a display and keeps state
    from matplotlib.ticker import MaxNLocator
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    measured = scores(found)
    shown = {(f"{name}, {each.measurement}" if len(measured) > 1 else name): line for each in measured for name, line in each.lines.items()}
    how = f", dB ({measured[0].measurement})" if len(measured) == 1 and measured[0].measurement else ", dB"
    for axes, what, lines in ((left, "training loss", losses(found)), (right, f"test PSNR{how}", shown)):
        for name, line in distinct(lines).items():
            axes.plot(*zip(*line), label=name, marker="." if len(line) < 30 else None)
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
