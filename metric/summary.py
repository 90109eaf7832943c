"""Summarise the numbers of single images for a data set: mean, median, and a confidence interval of the mean."""
import csv
import io
from pathlib import Path

import numpy as np

from runtime.files import write_text

RESAMPLES = 2000
LARGEST = 1e9                             # of the numbers that are read from a table


def summarise(rows: list[dict[str, float]]) -> dict:
    """Return the mean of every measure, and by measure `median` and `interval95` (bootstrap of the mean, 2,000 resamples, seed 0)."""
    if not rows:
        return {}
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    return {**{key: float(values.mean()) for key, values in columns.items()},
            "median": {key: float(np.median(values)) for key, values in columns.items()},
            "interval95": {key: interval(values) for key, values in columns.items()}}


def interval(values: np.ndarray) -> list[float]:
    """Return [low, high], the bootstrap 95 % confidence interval of the mean of values (N,)."""
    picks = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), (0.025, 0.975))
    return [float(low), float(high)]


def write_table(path: Path, names: list[str], rows: dict[str, list[dict[str, float]]]) -> None:
    """Write a CSV file with one line per protocol and image: image, protocol, and every measure."""
    columns = list(dict.fromkeys(key for numbers in rows.values() for row in numbers for key in row))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "protocol", *columns])
    for protocol, numbers in rows.items():
        for name, row in zip(names, numbers):
            table.writerow([name, protocol, *(f"{row[key]:.6f}" if key in row else "" for key in columns)])
    write_text(path, text.getvalue())


def read_table(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return a table of `write_table` as {protocol: {image: {measure: value}}}; ValueError if it has another form."""
    with open(path, encoding="utf-8", newline="") as file:
        table: dict[str, dict[str, dict[str, float]]] = {}
        lines = csv.DictReader(file)
        if not {"image", "protocol"} <= set(lines.fieldnames or ()):
            raise ValueError("it has no columns 'image' and 'protocol'")
        for line in lines:
            name, protocol = line.pop("image"), line.pop("protocol")
            if None in line or name is None or protocol is None:
                raise ValueError(f"line {lines.line_num} has not as many columns as the head")
            numbers = {key: float(value) for key, value in line.items() if value}
            if not all(abs(value) <= LARGEST for value in numbers.values()):
                raise ValueError(f"line {lines.line_num} holds a number that is no measure")
            table.setdefault(protocol, {})[name] = numbers
    return table
