"""Benchmarks: data sets that papers test together, in the order of their tables, and tables of results beside published ones."""
import csv
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import metric


class Benchmark(NamedTuple):
    """A benchmark: a description, its data sets in the order of the papers' columns, and the papers' protocol.

    averaged: the data sets over which the papers take the mean; (): all of them.
    """
    about: str
    members: tuple[str, ...]
    protocol: str
    averaged: tuple[str, ...] = ()

    def mean_of(self) -> tuple[str, ...]:
        """Return the data sets over which the mean is taken."""
        return self.averaged or self.members


BENCHMARKS = {
    "AIO3": Benchmark("haze, rain and noise with one network",
                      ("SOTS_outdoor", "Rain100L", "CBSD68@15", "CBSD68@25", "CBSD68@50"), "promptir"),
    "AllWeather": Benchmark("snow, rain with fog, and drops with one network",
                            ("Snow100K-S", "Snow100K-L", "Outdoor-Rain", "Raindrop"), "snow100k_y",
                            averaged=("Snow100K-L", "Outdoor-Rain", "Raindrop")),
}
PUBLISHED = Path(__file__).with_name("published.csv")
Cell = tuple[float | None, float | None]  # PSNR in dB and SSIM


class Row(NamedTuple):
    """One row of a table: a label, a cell for each set and one for the mean, and over how many sets the mean is, '' for all."""
    label: str
    cells: list[Cell]
    over: str = ""
    published: bool = False


class Table(NamedTuple):
    """Results on a benchmark by one protocol; the titles of the columns include that of the mean."""
    benchmark: str
    protocol: str
    titles: list[str]
    rows: list[Row]
    notes: list[str]


def named(joined: str, dir_data: str) -> list[str]:
    """Return the benchmarks in `A+B`, each once; a folder of that name in the directory of the data sets is a data set instead."""
    return [name for name in dict.fromkeys(joined.split("+")) if name in BENCHMARKS and not (Path(dir_data) / name).is_dir()]


def members(joined: str, dir_data: str) -> list[str]:
    """Return the data sets of `A+B`, each once, with the data sets of a benchmark in its place."""
    found, names = named(joined, dir_data), [name for name in joined.split("+") if name]
    return list(dict.fromkeys(each for name in names for each in (BENCHMARKS[name].members if name in found else [name])))


def missing(name: str, dir_data: str) -> list[str]:
    """Return the data sets of a benchmark that are not in the directory of the data sets."""
    return [each for each in BENCHMARKS[name].members if not (Path(dir_data) / each.partition("@")[0]).is_dir()]


def protocol_of(joined: str, dir_data: str) -> str:
    """Return the protocols of the benchmarks in `A+B`, joined by +, '' without a benchmark."""
    return "+".join(dict.fromkeys(BENCHMARKS[name].protocol for name in named(joined, dir_data)))


def belonging(data_set: str, joined: str, dir_data: str) -> dict[str, dict[str, str]]:
    """Return {'benchmarks': {name: data_set}}, by which `tables` finds an entry of metrics.json, {} for a set of no benchmark in `A+B`."""
    found = {name: data_set for name in named(joined, dir_data) if data_set in BENCHMARKS[name].members}
    return {"benchmarks": found} if found else {}


@functools.cache
def published() -> list[dict[str, str]]:
    """Return the lines of published.csv by column name."""
    lines = [line for line in PUBLISHED.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


def tables(metrics: dict[str, dict]) -> list[Table]:
    """Return the tables of the benchmarks that the entries of metrics.json belong to, one for each protocol."""
    found = []
    for name, benchmark in BENCHMARKS.items():
        entries = {each["benchmarks"][name]: each for each in metrics.values() if name in each.get("benchmarks", ())}
        protocols = dict.fromkeys(numbers["protocol"]["name"] for each in entries.values() for numbers in _measured(each))
        found += [_table(name, benchmark, entries, protocol) for protocol in protocols]
    return found


def _measured(entry: dict) -> list[dict]:
    """Return the numbers of an entry by each protocol whose version is the present one."""
    return [each for each in (entry, *entry.get("others", ())) if "psnr" in each and each["protocol"]["name"] in metric.PROTOCOLS
            and each["protocol"]["version"] == metric.PROTOCOLS[each["protocol"]["name"]].version]


def _table(name: str, benchmark: Benchmark, entries: dict[str, dict], protocol: str) -> Table:
    titles = [*benchmark.members, f"mean of {len(benchmark.averaged)}" if benchmark.averaged else "mean"]
    rows, notes = [], []
    if benchmark.averaged:
        notes.append(f"The mean is that of {_listed(benchmark.averaged)}, as in the papers.")
    tested = list(dict.fromkeys((entry.get("weights"), entry.get("model")) for entry in entries.values()))
    for weights, model in tested:
        mine = {each: numbers for each, entry in entries.items() if (entry.get("weights"), entry.get("model")) == (weights, model)
                for numbers in _measured(entry) if numbers["protocol"]["name"] == protocol}
        present = [each for each in benchmark.mean_of() if each in mine]
        cells = [(mine[each]["psnr"], mine[each]["ssim"]) if each in mine else (None, None) for each in benchmark.members]
        count = f"{len(present)} of {len(benchmark.mean_of())}"
        over = "" if len(present) == len(benchmark.mean_of()) else count
        label = f"{model}, measured here" if len(tested) == 1 else f"{weights}, measured here"
        rows.append(Row(label, [*cells, _mean(mine, present)], over))
        lacking = [each for each in benchmark.members if each not in mine]
        if lacking:
            notes.append(f"{_listed(lacking)} {'is' if len(lacking) == 1 else 'are'} missing"
                         + (f", so the mean is over {count} sets and cannot be compared with published means." if over else "."))
        notes += [f"{each}: {entries[each]['subset']}, so its number and the mean cannot be compared with published ones."
                  for each in benchmark.members if each in mine and entries[each].get("subset", "all") != "all"]
    known = [line for line in published() if line["benchmark"] == name]
    lines = [line for line in known if line["protocol"] == protocol]
    for method in dict.fromkeys(line["method"] for line in lines):
        stated = {line["set"]: (_number(line["psnr"]), _number(line["ssim"])) for line in lines if line["method"] == method}
        rows.append(Row(method, [stated.get(each, (None, None)) for each in (*benchmark.members, "mean")], published=True))
    if lines:
        notes.append("Published rows: the numbers of the papers, from the project's notes "
                     f"{_listed(list(dict.fromkeys(line['notes'] for line in lines)))} (data/published.csv).")
    elif known:
        others = list(dict.fromkeys(line["protocol"] for line in known))
        notes.append(f"Published numbers were not measured by {protocol}; they are shown with --protocol {' or '.join(others)}.")
    return Table(name, protocol, titles, rows, notes)


def _mean(numbers: dict[str, dict], names: list[str]) -> Cell:
    if not names:
        return None, None
    return tuple(sum(numbers[each][key] for each in names) / len(names) for key in ("psnr", "ssim"))


def _number(text: str) -> float | None:
    return float(text) if text else None


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def in_words(table: Table) -> list[str]:
    """Return a table as lines of text of equal columns, for the log."""
    body = [[row.label + (" (published)" if row.published else ""), *map(_cell, row.cells)] for row in table.rows]
    for line, row in zip(body, table.rows):
        line[-1] += f" over {row.over}" if row.over else ""
    lines = [["PSNR in dB / SSIM", *table.titles], *body]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return [f"benchmark {table.benchmark}, protocol {table.protocol}",
            *("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines), *table.notes]


def _cell(cell: Cell) -> str:
    psnr, ssim = cell
    return "–" if psnr is None else f"{psnr:.2f}" + ("" if ssim is None else f" / {ssim:.4f}")
