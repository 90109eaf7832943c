"""The table of a group of cases, and its place in docs/benchmarks.md."""
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runtime.errors import Failure
from runtime.files import write_text

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "benchmarks.md"
HEAD = ("case", "way", "median", "least – most", "times plain", "difference from plain", "first call")
BUSY = 0.5                                # cores in use by other programs from which a measurement is marked


def lines(report: dict[str, Any]) -> list[str]:
    """Return the table of a report (see command.py) and the sentences below it, in Markdown."""
    memory = any(row["memory_mib"] is not None for row in report["rows"])
    head = [*HEAD, "memory"] if memory else HEAD
    found = [_row(head), "|---" * len(head) + "|", *(_row(cells(row, memory)) for row in report["rows"])]
    found += ["", f"{stated(report)}{loaded(report['load'])}"]
    found += [f"Not measured: {each['case']}, {each['way']}: {each['reason']}." for each in report["left_out"]]
    return found


def _row(values: Iterable[str]) -> str:
    return f"| {' | '.join(values)} |"


def cells(row: dict[str, Any], memory: bool) -> list[str]:
    """Return the texts of a row."""
    number = ".2f" if row["unit"] == "s" and row["median"] >= 1 else ".3f" if row["unit"] == "s" else ",.1f"
    value = [f"{row[key]:{number}}" for key in ("median", "least", "most")]
    difference = f"{row['beyond_seconds']:+.2f} s" if row["difference"] is None else f"{row['difference']:.1e}"
    if row["mean_levels"] is not None:
        difference += f", mean {row['mean_levels']:.3f} levels"
    if row["equal"] is False:
        difference += " **not equal**"
    found = [row["case"], row["way"], f"{value[0]} {row['unit']}", f"{value[1]} – {value[2]}", f"{row['ratio']:.2f}", difference,
             f"{row['first_seconds']:.1f} s"]
    return [*found, f"{row['memory_mib']:,.0f} MiB"] if memory else found


def stated(report: dict[str, Any]) -> str:
    """Return when, where and with what a report was measured, in a sentence."""
    machine, quick = report["machine"], " **Quick run: tiny networks, numbers without meaning.**" if report["quick"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    commit = f"; commit {machine['commit']}" if machine["commit"] else ""
    return (f"{report['time']}, {machine['device']}, {machine['processor']}, cores: {machine['cores']}, threads: {machine['threads']}; "
            f"{versions}{commit}.{quick}")


def loaded(load: dict[str, float]) -> str:
    """Return a sentence on what other programs used of the machine, in bold if it was much."""
    text = f"Other programs used {load['start']:.1f} cores at the start and {load['end']:.1f} at the end."
    return f" **{text} The numbers are those of a busy machine.**" if max(load.values()) >= BUSY else f" {text}"


def write(reports: dict[str, dict[str, Any]], page: Path = PAGE) -> None:
    """Replace the tables of these groups on the page, each between two comments; raises Failure if a comment is missing."""
    text = page.read_text(encoding="utf-8")
    for group, report in reports.items():
        block = re.compile(rf"(<!-- bench {group} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not block.search(text):
            raise Failure(f"{page} has no lines '<!-- bench {group} -->' and '<!-- end -->', between which the table is written")
        text = block.sub(lambda found, report=report: f"{found[1]}\n" + "\n".join(lines(report)) + f"\n\n{found[2]}", text)
    write_text(page, text)
