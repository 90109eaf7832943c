"""python -m tool.compare A B [C …]: compare saved runs image by image; A is the run that the others are compared with."""
import argparse
import csv
import sys
from pathlib import Path

import numpy as np

import metric
import report
from metric import summary
from report.page import worded
from runtime import experiment
from runtime.arguments import Parser
from runtime.errors import UserError
from runtime.files import check_output, make_folder, natural, temporary
from tool import guarded

Table = dict[str, dict[str, float]]       # image name -> measure -> value


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed flags; UserError for an unknown flag."""
    parser = Parser(prog="tool.compare", description=__doc__, allow_abbrev=False)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="names of runs in experiment/, or CSV files written by tool.measure")
    parser.add_argument("--data_test", default="", metavar="SET", help="data set; default: the first one that all runs have")
    parser.add_argument("--protocol", default="default", metavar="NAME", help="the protocol; every run must have been measured with it")
    parser.add_argument("--measure", default="psnr", help="the column to compare, for example psnr, ssim or psnr_y")
    parser.add_argument("--output", default="", metavar="DIR",
                        help="output directory of the scatter plot and the page; default: experiment/compare")
    return parser.parse_args(argv)


def tables(args) -> tuple[str, dict[str, Table]]:
    """Return the name of the data set and the numbers of each run; UserError when a run lacks the set, the protocol or the measure."""
    if len(set(args.runs)) < 2:
        raise UserError("name at least two different runs, for example: python -m tool.compare smgarn mine")
    files = {run: _files(run) for run in args.runs}
    common = [name for name in files[args.runs[0]] if all(name in found or "" in found for found in files.values())]
    name = args.data_test or (common[0] if common else "")
    found = {}
    for run, sets in files.items():
        path = sets.get(name) or sets.get("")
        if not path:
            raise UserError(f"the run {run} has no numbers for the data set '{name}'; it has: {', '.join(sets) or 'none'}")
        table = _read(path)
        if args.protocol not in table:
            raise UserError(f"{path} has no numbers for the protocol {args.protocol}; it has: {', '.join(table)}")
        if any(args.measure not in row for row in table[args.protocol].values()):
            known = ", ".join(next(iter(table[args.protocol].values())))
            raise UserError(f"{path} does not have '{args.measure}' for every image; it has: {known}")
        found[run] = table[args.protocol]
    return name, found


def _files(run: str) -> dict[str, Path]:
    """Return the CSV files of a run by data set; a run that is itself a CSV file is used for any data set (key '')."""
    if run.endswith(".csv"):
        return {"": Path(run)}
    place = experiment.folder_of(run)
    if not place.is_dir():
        raise UserError(f"there is no experiment {place}; name a folder in {experiment.ROOT}/ or a CSV file")
    return {path.stem.removeprefix("metrics-"): path for path in sorted(place.glob("metrics-*.csv"), key=natural)}


def _read(path: Path) -> dict[str, Table]:
    try:
        return summary.read_table(path)
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read the table {path}: {error}; it must be written by a test or by tool.measure --csv") from error


def paired(first: Table, second: Table, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of the images that both tables have, in the same order; UserError when they have no image in common."""
    shared = sorted(set(first) & set(second), key=natural)
    if not shared:
        raise UserError("the runs have no image in common")
    return tuple(np.array([table[name][measure] for name in shared]) for table in (first, second))


def run(argv: list[str] | None = None) -> None:
    """Print the mean of each run and its paired difference to the first run, draw a scatter plot, and write a page with all results."""
    args = arguments(argv)
    name, found = tables(args)
    base, *others = args.runs
    place = Path(args.output or experiment.ROOT / "compare")
    check_output(place, "--output", folder=True)
    if (place / "args.json").is_file():
        raise UserError(f"{place} is the folder of a run, whose report.html would be replaced; name another with --output DIR")
    beside = args.measure.replace("psnr", "ssim")                      # the mean of this measure stands beside that of a PSNR
    beside = beside if beside != args.measure and all(beside in row for table in found.values() for row in table.values()) else ""
    print(f"{name or 'tables'}, protocol {args.protocol}, {args.measure}; difference to {base}, image by image")
    print(f"{'run':24}{'images':>7}{'mean':>10}{beside:>10}{'difference':>12}   {'95 % interval':22}{'better on':>10}")
    rows = []
    for run_name in args.runs:
        a, b = paired(found[base], found[run_name], args.measure)
        mean = f"{paired(found[base], found[run_name], beside)[1].mean():.4f}" if beside else ""
        line = f"{run_name:24}{len(b):7}{b.mean():10.4f}{mean:>10}"
        rows.append({"Run": run_name, "Images": str(len(b)), f"Mean {args.measure.upper()}": f"{b.mean():.4f}"}
                    | ({f"Mean {beside.upper()}": mean} if beside else {})
                    | dict.fromkeys((f"Difference to {base}", "95 % interval", "Better on"), "–"))
        if run_name != base:
            low, high = summary.interval(b - a)
            columns = f"{(b - a).mean():+.4f}", f"{low:+.4f} to {high:+.4f}", f"{(b > a).mean():.0%}"
            rows[-1] |= dict(zip(list(rows[-1])[-3:], columns))
            line += f"{columns[0]:>12}   {columns[1]:22}{columns[2]:>10}"
            missing = len(set(found[base]) ^ set(found[run_name]))
            line += f"   ({missing} images are in only one of the runs)" if missing else ""
        print(line)
    flags = different_flags(args.runs)
    print("flags that differ:" if flags else "no flags of the runs are known to differ")
    for row in flags:
        name_of, *values = row.values()
        print(f"  {name_of}: {', '.join(f'{each} {value}' for each, value in zip(list(row)[1:], values))}")
    path = scatter(found, base, others, args, place)
    print(f"scatter plot: {path}")
    settings = metric.described(metric.PROTOCOLS[args.protocol]) if args.protocol in metric.PROTOCOLS else "settings unknown"
    places = {each: Path(each) if each.endswith(".csv") else experiment.folder_of(each) for each in args.runs}
    page = report.compare(path.with_name("report.html"), places, found, name, f"protocol {args.protocol}, {settings}", rows, flags)
    print(f"page: {page}")


def different_flags(runs: list[str]) -> list[dict[str, str]]:
    """Return a row {'Flag': name, run: value, …} for each flag whose values differ between the runs, except those that change no result.

    A run that is a CSV file states no flags; '–' is a flag that a run does not state.
    """
    stored = {each: experiment.stored_args(experiment.folder_of(each)) for each in runs if not each.endswith(".csv")}
    stored = {each: flags for each, flags in stored.items() if flags}
    names = sorted(set().union(*stored.values()) - {"save", *experiment.INCIDENTAL})
    values = {name: {each: worded(flags[name]) if name in flags else "–" for each, flags in stored.items()} for name in names}
    return [{"Flag": f"--{name}", **texts} for name, texts in values.items() if len(set(texts.values())) > 1]


def scatter(found: dict[str, Table], base: str, others: list[str], args, place: Path) -> Path:
    """Draw the value of every image in the other runs against its value in the first run; return the path of the PNG."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for name in others:
        axes.scatter(*paired(found[base], found[name], args.measure), s=14, alpha=.7, label=_literal(name))
    low, high = min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot((low, high), (low, high), color="grey", linewidth=1)
    axes.set(xlabel=_literal(f"{base}: {args.measure}"), ylabel=_literal(args.measure),
             title=_literal(f"{args.protocol}: above the line is better than {base}"))
    axes.legend(frameon=False)
    path = make_folder(place) / f"{args.measure}.png"
    with temporary(path) as part:
        figure.savefig(part, format="png", dpi=120)
    return path


def _literal(text: str) -> str:
    """Return a text that matplotlib draws as it is, not as a formula."""
    return text.replace("$", r"\$")


if __name__ == "__main__":
    sys.exit(guarded("tool.compare", run))
