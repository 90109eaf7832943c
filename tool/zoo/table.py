"""Tests of the networks of the zoo on every set that is found, and their tables in README.md and docs/zoo.md."""
import hashlib
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import data
import main
import metric
import option
from data import added, loader
from data.choose import choose
from data.sets import DATASETS
from model import weights
from restore.restorer import Restorer
from runtime import experiment, files, process, zoo
from runtime.errors import Failure, UserError
from runtime.progress import Progress
from tool.zoo import cards, classical, prepare

PROTOCOLS = "default+y_truncated"         # the second one is that of PReNet and SAPNet
SIDE = 512                                # side in pixels of the image that is restored for the time
MARKS = "<!-- zoo {} -->", "<!-- zoo end -->"
PAGES = {"short": Path("README.md"), "long": Path("docs/zoo.md")}


class Set(NamedTuple):
    """A test set: its task, the name as in --data_test, the measure of the table, what it is in words, whether the README has it."""
    task: str
    name: str
    measure: str
    about: str
    short: bool = False


SETS = (
    Set("noise", "CBSD68@15", "psnr", "sigma 15, clipped, 8 bits"),
    Set("noise", "CBSD68@25", "psnr", "sigma 25, clipped, 8 bits", True),
    Set("noise", "CBSD68@50", "psnr", "sigma 50, clipped, 8 bits", True),
    Set("noise", "CBSD68@15f", "psnr", "sigma 15, float"),
    Set("noise", "CBSD68@25f", "psnr", "sigma 25, float"),
    Set("noise", "CBSD68@50f", "psnr", "sigma 50, float"),
    Set("rain", "Rain100L", "psnr_y", "synthetic streaks", True),
    Set("rain", "Rain800", "psnr_y", "test part, known as Test100; JPEG copies", True),
    Set("rain", "CBSD68@rain", "psnr_y", "drawn as in training, other photos"),
    Set("haze", "SOTS_indoor", "psnr", "RESIDE, indoor scenes", True),
    Set("haze", "CBSD68@haze", "psnr", "drawn as in training, other photos"),
    Set("snow", "CBSD68@snow", "psnr", "drawn as in training, other photos", True),
    Set("clean", "CBSD68@0", "psnr", "clean photos: do no harm", True),
)


class Row(NamedTuple):
    """The numbers of a network, or of the input or a classical method, on a set."""
    count: int
    psnr: float
    psnr_y: float
    ssim: float
    ssim_y: float


def run(names: list[str], write: bool) -> None:
    """Test networks (all if none is named) on the sets of their tasks, print the tables and, with `write`, put them into the pages."""
    known = zoo.names()
    wrong = next((name for name in names if name not in known), "")
    if wrong:
        raise UserError(f"the zoo has no weights '{wrong}'; known: {', '.join(known) or 'none'}")
    if write and names:
        raise UserError("--write needs the numbers of all networks; leave out the names")
    found = prepare.source()
    if not found:
        raise UserError("the test sets of the zoo are those of the folder that UNWEATHER_DATA names; set this variable (docs/zoo.md)")
    root = prepare.prepare(found)
    chosen = names or known
    results = {name: tested(name, root) for name in chosen}
    sets = [each for each in SETS if any(each.name in rows for rows, _ in results.values())]
    before = {each.name: compared(each, root) for each in sets}
    texts = {"short": short(sets, before, results), "long": long(sets, before, results)}
    print("", texts["short"], texts["long"], sep="\n")
    for kind, page in PAGES.items() if write else ():
        put(page, kind, texts[kind])
        print(f"{page}: written")
    for name in chosen if write else ():
        print(f"{cards.write(name, of_one(name, sets, before, results[name]))}: written")


def tasks(name: str) -> set[str]:
    """Return the tasks that a network of the zoo was trained for, and 'clean', as its args.json states them by its training sets."""
    flags = experiment.read_args(zoo.ROOT / name / "args.json")
    found = {"clean"}
    for part in str(flags["data_train"]).split("+"):
        base, what = added.split(part)
        found |= set(classical.METHODS) if what and what.how == "any" else {what.task if what else DATASETS[base].task}
    return found


def tested(name: str, root: Path) -> tuple[dict[str, Row], float]:
    """Return the rows of a network by set, and its seconds for a megapixel on this machine; what was tested before is not repeated."""
    file = zoo.located(zoo.PREFIX + name)
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8]
    folder = experiment.folder_of(f"zoo/tests/{name}-{digest}")
    rows = {}
    for each in SETS:
        if each.task not in tasks(name):
            continue
        done = read(folder / "metrics.json")
        if each.name not in done:
            flags = ["--test_only", "--pre_train", zoo.PREFIX + name, "--data_test", each.name, "--dir_data", str(root),
                     "--protocol", PROTOCOLS, "--save", f"zoo/tests/{name}-{digest}", "--no-report"]
            if status := main.main(flags):
                raise Failure(f"the test of {name} on {each.name} ended with status {status}; the same command continues")
            done = read(folder / "metrics.json")
        rows[each.name] = row_of(done[each.name])
    return rows, seconds(name)


def row_of(numbers: dict) -> Row:
    """Return the row of the entry of a set in metrics.json."""
    return Row(numbers["count"], *(numbers[key] for key in ("psnr", "psnr_y", "ssim", "ssim_y")))


def read(path: Path) -> dict:
    """Return the contents of a JSON file, {} if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def seconds(name: str) -> float:
    """Return the seconds in which a network restores a megapixel on this machine in float32, by an image of SIDE x SIDE pixels."""
    with process.session(True, 0):
        restorer, x = Restorer(weights.load(zoo.PREFIX + name)), torch.rand(1, 3, SIDE, SIDE)
        took = []
        for _ in range(4):                # the first one is not counted
            start = time.perf_counter()
            restorer(x, may_tile=False)
            took.append(time.perf_counter() - start)
    return sorted(took[1:])[1] / SIDE**2 * 1e6


def compared(each: Set, root: Path) -> dict[str, Row]:
    """Return the rows of the input and of each classical method on a set; numbers of an earlier call are read again."""
    path = experiment.folder_of("zoo/tests") / "classical.json"
    known = read(path)
    wanted = {"input": lambda pixels: pixels} | classical.METHODS[each.task]
    lacking = [method for method in wanted if method not in known.get(each.name, {})]
    if lacking:
        args = option.parse(["--data_test", each.name, "--dir_data", str(root), "--no-audit"])
        test, = data.tests(args, {each.name: choose(args, each.name, "test")}).values()
        images = loader.Images(test.items, ("image",), test.read)
        rows: dict[str, list[dict]] = {method: [] for method in lacking}
        protocol = metric.PROTOCOLS["default"]
        progress = Progress(f"classical methods on {each.name}", len(images), "images")
        for sample in progress.each(map(images.__getitem__, range(len(images)))):
            pixels = sample.input.permute(1, 2, 0).double().numpy()
            for method in lacking:
                result = torch.from_numpy(np.ascontiguousarray(wanted[method](pixels))).permute(2, 0, 1)[None].float().clamp(0, 1)
                rows[method].append(metric.compare(result, sample.targets["image"][None], protocol, test.task))
        for method, of in rows.items():
            means = {key: float(np.mean([row[key] for row in of])) for key in of[0]}
            known.setdefault(each.name, {})[method] = means | {"count": len(of)}
        files.make_folder(path.parent)
        files.write_json(path, known)
    return {method: row_of(known[each.name][method]) for method in wanted}


def best(each: Set, before: dict[str, Row]) -> tuple[str, Row] | None:
    """Return the classical method with the highest value of a set's measure, and its row; None if the task has no such method."""
    methods = [item for item in before.items() if item[0] != "input"]
    return max(methods, key=lambda item: getattr(item[1], each.measure)) if methods else None


def short(sets: list[Set], before: dict[str, dict[str, Row]], results: dict[str, tuple[dict[str, Row], float]]) -> str:
    """Return the table of the README: a row for each set, a column for each network."""
    lines = [["PSNR in dB", "images", "input", "classical", *(f"`{zoo.PREFIX}{name}`" for name in results)]]
    for each in (each for each in sets if each.short):
        row, rival = before[each.name], best(each, before[each.name])
        lines.append([f"{each.task}: {each.name}, {'Y' if each.measure == 'psnr_y' else 'RGB'}", str(row["input"].count),
                      number(getattr(row["input"], each.measure)), number(getattr(rival[1], each.measure)) if rival else "",
                      *(number(getattr(rows[each.name], each.measure)) if each.name in rows else "" for rows, _ in results.values())])
    lines.append(["seconds for a megapixel, float32", "", "", "", *(f"{took:.1f}" for _, took in results.values())])
    return markdown(lines)


def long(sets: list[Set], before: dict[str, dict[str, Row]], results: dict[str, tuple[dict[str, Row], float]]) -> str:
    """Return the table of docs/zoo.md: for each set the input, every classical method and every network, with all measures."""
    lines = [["set", "images", "method", "PSNR RGB", "PSNR Y", "SSIM RGB", "SSIM Y"]]
    for each in sets:
        rows = before[each.name] | {f"`{zoo.PREFIX}{name}`": found[each.name] for name, (found, _) in results.items() if each.name in found}
        for method, row in rows.items():
            lines.append([f"{each.name} ({each.about})", str(row.count), method, number(row.psnr), number(row.psnr_y), f"{row.ssim:.4f}",
                          f"{row.ssim_y:.4f}"])
    return markdown(lines)


def of_one(name: str, sets: list[Set], before: dict[str, dict[str, Row]], results: tuple[dict[str, Row], float]) -> str:
    """Return the table of a network's card: for each set of its tasks the input, the best classical method and the result."""
    rows, took = results
    lines = [["set", "images", "channel", "PSNR input", "PSNR classical", "PSNR restored", "SSIM input", "SSIM restored"]]
    for each in (each for each in sets if each.name in rows):
        row, rival, ours = before[each.name]["input"], best(each, before[each.name]), rows[each.name]
        kind, ssim = ("Y", "ssim_y") if each.measure == "psnr_y" else ("RGB", "ssim")
        lines.append([f"{each.name} ({each.about})", str(ours.count), kind, number(getattr(row, each.measure)),
                      f"{number(getattr(rival[1], each.measure))} ({rival[0]})" if rival else "", number(getattr(ours, each.measure)),
                      f"{getattr(row, ssim):.4f}", f"{getattr(ours, ssim):.4f}"])
    return f"{markdown(lines)}\n\nTime for a megapixel on the machine that made this table, float32: {took:.1f} s."


def number(value: float) -> str:
    """Return a PSNR as text."""
    return f"{value:.2f}" if value < 99 else "equal"


def markdown(lines: list[list[str]]) -> str:
    """Return a table; the first line is its head."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], ["---"] * len(lines[0]), *lines[1:]))


def put(page: Path, kind: str, text: str) -> None:
    """Replace what stands between the marks of a table in a page; raises Failure if they are missing."""
    content = page.read_text(encoding="utf-8")
    begin = MARKS[0].format(kind)
    head, mark, rest = content.partition(begin)
    _, end, tail = rest.partition(MARKS[1])
    if not mark or not end:
        raise Failure(f"{page} has no lines {begin} and {MARKS[1]} between which the table stands")
    files.write_text(page, f"{head}{begin}\n\n{text}\n\n{MARKS[1]}{tail}")
