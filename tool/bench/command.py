"""The command python -m tool.bench: which cases are measured, how long it takes, and where the numbers are written."""
import argparse
import contextlib
import importlib.metadata
import math
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import restore.backend
from runtime import machine, process, waiting
from runtime.arguments import SIZE, Parser
from runtime.errors import Failure, UserError
from runtime.files import make_folder, write_json
from runtime.progress import Progress, duration
from tool.bench import cases, gpu, table
from tool.bench.networks import NETWORKS, Setting
from tool.bench.timing import Case, Result, measure

GROUPS = ("restore", "train", "data", "code", "start")
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "onnx", "onnxruntime", "openvino")
BACKENDS = "onnxruntime+openvino"
QUICK_SECONDS = 3                         # that a case takes in a quick run on two cores


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed flags; UserError for an unknown flag or value."""
    parser = Parser(prog="tool.bench", description="Compare this framework with plain code that does the same work (docs/benchmarks.md).",
                    allow_abbrev=False)
    parser.add_argument("cases", nargs="*", metavar="CASES", help=f"groups of cases to measure: {', '.join(GROUPS)}; default: all")
    parser.add_argument("--model", nargs="+", default=[*NETWORKS], metavar="NAME", help=f"networks; known: {', '.join(NETWORKS)}")
    parser.add_argument("--backends", default=BACKENDS, metavar="A+B",
                        help="backends for restoring besides torch; compile is one of them and takes minutes for its first call")
    parser.add_argument("--rounds", type=SIZE, default=5, help="rounds in which the ways of a case are measured in turn")
    parser.add_argument("--seconds", type=SIZE, default=40, help="fewer rounds, but at least 3, if those of a case take longer")
    parser.add_argument("--quick", action="store_true", help="tiny networks, one round: shows that everything runs, in about a minute")
    parser.add_argument("--gpu", action="store_true", help=f"measure on the GPU instead, in at most {duration(gpu.SECONDS)}")
    parser.add_argument("--json", default="", metavar="FILE", help="file of all numbers; default: experiment/bench.json or bench_gpu.json")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
    args = parser.parse_args(argv)
    for given, known, what in ((args.cases, GROUPS, "cases"), (args.model, NETWORKS, "--model"),
                               (args.backends.split("+") if args.backends else [], restore.backend.NAMES[1:], "--backends")):
        unknown = [each for each in given if each not in known]
        if unknown:
            raise UserError(f"{what} {unknown[0]}: known are {', '.join(known)}")
    if args.gpu and args.cases:
        raise UserError(f"--gpu has cases of its own; leave out {' '.join(args.cases)}")
    if args.write and args.model != [*NETWORKS]:
        raise UserError("--write replaces whole tables, which need all networks; leave out --model")
    return args


def run(argv: list[str] | None = None) -> None:
    """Measure what the flags select, print the tables and write them; raises Failure if results of equal work differ."""
    args = parse(argv)
    if args.gpu and not torch.cuda.is_available():
        raise UserError("--gpu needs a GPU, and PyTorch finds none on this machine; without --gpu the cases for CPUs are measured")
    file = Path(args.json or f"experiment/bench{'_gpu' if args.gpu else ''}.json")
    with process.session(not args.gpu, 1), workplace() as folder:
        setting = Setting(tuple(args.model), tuple(filter(None, args.backends.split("+"))), args.quick, folder)
        chosen = gpu.every(setting) if args.gpu else [case for case in cases.every(setting) if case.group in (args.cases or GROUPS)]
        seconds = len(chosen) * QUICK_SECONDS if args.quick else sum(case.about for case in chosen)
        process.log().say(f"{len(chosen)} cases, about {duration(seconds)}{'' if args.gpu else ' on two cores'}")
        reports = measured(args, chosen, make_folder(file.parent) / file.name)
    for group, report in reports.items():
        process.log().say("\n".join(["", f"## {group}", "", *table.lines(report)]))
    if args.write:
        table.write(reports)
    process.log().say(f"\nall numbers are in {file}" + (f", the tables in {table.PAGE}" if args.write else ""))
    differ = [f"{row['case']}: {row['way']}" for report in reports.values() for row in report["rows"] if row["equal"] is False]
    if differ:
        raise Failure(f"the results of these ways differ from plain: {'; '.join(differ)}")


def measured(args, chosen: list[Case], file: Path) -> dict[str, dict[str, Any]]:
    """Measure the cases; return the report of each group. The file has those of the cases that are finished, also if one fails."""
    reports: dict[str, dict[str, Any]] = {}
    end = time.monotonic() + gpu.SECONDS
    with Progress("bench", len(chosen), "cases", sum(case.about for case in chosen)) as progress:
        for number, case in enumerate(chosen):
            progress.begin(case.about)
            if case.group not in reports:
                reports[case.group] = {"time": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC", "machine": described(),
                                       "quick": args.quick, "load": {"start": waiting.busy_cores()}, "rows": [], "left_out": []}
            report = reports[case.group]
            whole = min(case.about, end - time.monotonic()) if args.gpu else math.inf
            result = measure(case, 1 if args.quick else args.rounds, args.seconds, whole)
            report["rows"] += result.rows
            report["left_out"] += result.left_out
            if number + 1 == len(chosen) or chosen[number + 1].group != case.group:
                report["load"]["end"] = waiting.busy_cores()
            write_json(file, {"format": 1, "quick": args.quick, "groups": reports})
            progress.end()
            process.log().say(in_words(case, result))
    return reports


def in_words(case: Case, result: Result) -> str:
    """Return the medians of a case and their ratios to plain in a line."""
    rate = "patches/s" if case.amount else "s"
    found = [f"{row['way']} {row['median']:.4g} {rate} (x{row['ratio']:.2f})" for row in result.rows]
    return f"{case.group} {case.name}: {', '.join(found)}" + "".join(f"; not {each['way']}: {each['reason']}" for each in result.left_out)


def described() -> dict[str, Any]:
    """Return the processor, the cores, the threads, the versions and the commit with which is measured."""
    known = {each.metadata["Name"].lower(): each.version for each in importlib.metadata.distributions() if each.metadata["Name"]}
    return {"device": machine.describe()["device"], "processor": machine.processor(), "system": platform.platform(), **process.threads(),
            "versions": {"Python": platform.python_version(), **{name: known[name] for name in PACKAGES if name in known}},
            "commit": commit()}


def commit() -> str:
    """Return the commit of this repository, with a plus if files differ from it; '' if it is none."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        def git(*words: str) -> str:
            return subprocess.run(["git", *words], cwd=table.REPO, capture_output=True, text=True, check=True).stdout.strip()
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    return ""


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """Yield an empty folder, which is also the cache of the backends within the block, so that each first call is one."""
    before = os.environ.get("UNWEATHER_CACHE")
    with tempfile.TemporaryDirectory(prefix="unweather-bench-", ignore_cleanup_errors=True) as folder:
        os.environ["UNWEATHER_CACHE"] = str(Path(folder, "cache"))
        try:
            yield Path(folder)
        finally:
            os.environ.pop("UNWEATHER_CACHE")
            if before is not None:
                os.environ["UNWEATHER_CACHE"] = before
