"""Tests of the networks of the zoo on every set that is found, and their tables in README.md and docs/zoo.md."""
import hashlib
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import data
import main
import metric
import option
from contract import TestSet
from data import loader
from data.choose import choose
from metric import summary
from model import weights
from restore.restorer import Restorer
from runtime import experiment, files, machine, process, zoo
from runtime.errors import Failure, UserError
from runtime.progress import Progress
from tool.zoo import cards, classical, numbers, prepare, recipes

FIRST, SECOND = "default", "y_truncated"  # protocols; the second one is that of PReNet and SAPNet
SIDE = 512                                # side in pixels of the image that is restored for the time
MARKS = "<!-- zoo {} -->", "<!-- zoo end -->"
PAGES = {"short": Path("README.md"), "long": Path("docs/zoo.md")}          # below the folder that has zoo/


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
    Set("rain", "CBSD68@rain", "psnr_y", "synthetic, as in the training, on other photos"),
    Set("haze", "SOTS_indoor", "psnr", "RESIDE, indoor scenes", True),
    Set("haze", "CBSD68@haze", "psnr", "synthetic, as in the training, on other photos"),
    Set("snow", "CBSD68@snow", "psnr", "synthetic, as in the training, on other photos", True),
    Set("clean", "CBSD68@0", "psnr", "clean photos: do no harm", True),
)


class Published(NamedTuple):
    """A published number, or one of released weights that was measured for this project.

    Images, method in words, PSNR in dB, and the column of the long table in which it stands.
    """
    images: int
    method: str
    psnr: float
    column: str


PUBLISHED = {
    "CBSD68@15": [Published(68, "DSRIR, all in one, published, protocol `dsrir`", 33.95, "PSNR RGB")],
    "CBSD68@25": [Published(68, "DSRIR, all in one, published, protocol `dsrir`", 31.27, "PSNR RGB")],
    "CBSD68@50": [Published(68, "DSRIR, all in one, published, protocol `dsrir`", 27.98, "PSNR RGB")],
    "Rain100L": [Published(50, "SAPNet's released weights, measured here, these images", 32.87, "PSNR Y"),
                 Published(100, "SAPNet's released weights, measured, all images", 32.66, "PSNR Y"),
                 Published(100, "PReNet's released weights, measured with Y that is not rounded, all images", 37.46, "PSNR Y, truncated"),
                 Published(100, "DSRIR, all in one, published, protocol `dsrir`", 40.61, "PSNR Y")],
}


class Row(NamedTuple):
    """The numbers of a network, or of the input or a classical method, on a set.

    psnr_t: PSNR of Y by the second protocol; worse: number of images whose PSNR by the measure of the set is below that of their input;
    lost: the largest such loss in dB.
    """
    count: int
    psnr: float
    psnr_y: float
    ssim: float
    ssim_y: float
    psnr_t: float
    worse: int = 0
    lost: float = 0.0


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
    root, chosen, home = prepare.prepare(found), names or known, zoo.ROOT.parent
    for name in chosen if write else ():
        if not (zoo.ROOT / name / "notes.md").is_file():
            raise UserError(f"{zoo.ROOT / name} has no notes.md, which says what the network does and where it fails; write it first")
    for kind, page in PAGES.items() if write else ():
        parted(home / page, kind)
    tests = {each.name: opened(each, root) for each in SETS}
    results = {name: tested(name, root, tests) for name in chosen}
    sets = [each for each in SETS if any(each.name in rows for rows, _ in results.values())]
    before = {each.name: compared(each, tests[each.name]) for each in sets}
    last = {name: results[name] for name in recipes.complete(chosen)}
    texts = {"short": short(sets, before, last), "long": long(sets, before, last)}
    print("", texts["short"], texts["long"], sep="\n")
    for kind, page in PAGES.items() if write else ():
        put(home / page, kind, texts[kind])
        print(f"{page}: written")
    for name in chosen if write else ():
        print(f"{cards.write(name, of_one(name, sets, before, results[name]))}: written")


def opened(each: Set, root: Path) -> TestSet:
    """Return the images of a set."""
    args = option.parse(["--data_test", each.name, "--dir_data", str(root), "--no-audit"])
    test, = data.tests(args, {each.name: choose(args, each.name, "test")}).values()
    return test


def signature(test: TestSet) -> str:
    """Return a text that differs for sets of other names, for another first image, and when what is added is drawn in another way."""
    digest = hashlib.sha256("\n".join(item.name for item in test.items).encode())
    digest.update(loader.Images(test.items[:1], ("image",), test.read)[0].input.numpy())
    return digest.hexdigest()[:8]


def tested(name: str, root: Path, tests: dict[str, TestSet]) -> tuple[dict[str, Row], float]:
    """Return the rows of a network by set, and its seconds for a megapixel on this machine; equal tests are not repeated."""
    digest = hashlib.sha256(Path(zoo.located(zoo.PREFIX + name)).read_bytes()).hexdigest()[:8]
    rows, wanted = {}, (*recipes.tasks(recipes.flags(name)), "clean")
    for each in (each for each in SETS if each.task in wanted):
        test = f"{digest}-{signature(tests[each.name])}"
        if (stored := numbers.known(name, each.name, test)).keys() == {*Row._fields}:
            rows[each.name] = Row(**stored)
            continue
        save = f"zoo/tests/{name}/{each.name}"
        flags = ["--test_only", "--pre_train", zoo.PREFIX + name, "--data_test", each.name, "--dir_data", str(root), "--protocol",
                 f"{FIRST}+{SECOND}", "--save", save, "--no-report", *recipes.network_alone(recipes.flags(name))]
        if status := main.main(flags):
            raise Failure(f"the test of {name} on {each.name} ended with status {status}; the same command continues")
        place = experiment.folder_of(save) / "metrics.json"
        rows[each.name] = row_of(files.read_json(place)[each.name])
        if each.task != "clean":          # whose input cannot become better
            rows[each.name] = harmed(rows[each.name], each, place.with_name(f"metrics-{each.name}.csv"))
        numbers.keep(name, each.name, test, rows[each.name]._asdict())
    return rows, seconds(name)


def harmed(row: Row, each: Set, path: Path) -> Row:
    """Return the row with the images that became worse, by the table of single images that the test wrote."""
    images = summary.read_table(path)[FIRST].values()
    losses = [loss for image in images if (loss := image[f"input_{each.measure}"] - image[each.measure]) > 0]
    return row._replace(worse=len(losses), lost=max(losses, default=0.0))


def row_of(entry: dict) -> Row:
    """Return the row of the entry of a set in metrics.json; raises Failure if it lacks a number."""
    try:
        return Row(*(entry[key] for key in ("count", "psnr", "psnr_y", "ssim", "ssim_y")), entry["others"][0]["psnr"])
    except (KeyError, IndexError, TypeError) as error:
        raise Failure("zoo/numbers.json or a file in experiment/zoo/tests lacks numbers; delete it and repeat the command") from error


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


def compared(each: Set, test: TestSet) -> dict[str, Row]:
    """Return the rows of the input and of each classical method on a set; numbers of an earlier call for these images are read again."""
    wanted = {"input": lambda pixels: pixels} | classical.METHODS[each.task]
    known = numbers.known("classical", each.name, signature(test))
    if set(known) != set(wanted):
        images = loader.Images(test.items, ("image",), test.read)
        rows: dict[str, list[dict]] = {method: [] for method in wanted}
        progress = Progress(f"classical methods on {each.name}", len(images), "images")
        for sample in progress.each(map(images.__getitem__, range(len(images)))):
            pixels, target = sample.input.permute(1, 2, 0).double().numpy(), sample.targets["image"][None]
            for method in wanted:
                result = torch.from_numpy(np.ascontiguousarray(wanted[method](pixels))).permute(2, 0, 1)[None].float().clamp(0, 1)
                first, second = (metric.compare(result, target, metric.PROTOCOLS[name], test.task) for name in (FIRST, SECOND))
                rows[method].append(first | {"truncated": second["psnr"]})
        means = {method: {key: float(np.mean([row[key] for row in of])) for key in of[0]} for method, of in rows.items()}
        known = {method: each | {"count": len(images), "others": [{"psnr": each["truncated"]}]} for method, each in means.items()}
        numbers.keep("classical", each.name, signature(test), known)
    return {method: row_of(known[method]) for method in wanted}


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
    """Return the table of docs/zoo.md: for each set the input, every classical method, every network and published numbers."""
    lines = [["set", "images", "method", "PSNR RGB", "PSNR Y", "SSIM RGB", "SSIM Y", "PSNR Y, truncated"]]
    for each in sets:
        rows = before[each.name] | {f"`{zoo.PREFIX}{name}`": found[each.name] for name, (found, _) in results.items() if each.name in found}
        for method, row in rows.items():
            lines.append([f"{each.name} ({each.about})", str(row.count), method, number(row.psnr), number(row.psnr_y), f"{row.ssim:.4f}",
                          f"{row.ssim_y:.4f}", number(row.psnr_t)])
        for known in PUBLISHED.get(each.name, []):
            cells = [number(known.psnr) if column == known.column else "" for column in lines[0][3:]]
            lines.append([f"{each.name} ({each.about})", str(known.images), known.method, *cells])
    return markdown(lines)


def of_one(name: str, sets: list[Set], before: dict[str, dict[str, Row]], results: tuple[dict[str, Row], float]) -> str:
    """Return the table of a network's card: for each set of its tasks the input, the best classical method, the result, the failures."""
    rows, took = results
    lines = [["set", "images", "channel", "PSNR input", "PSNR classical", "PSNR restored", "SSIM input", "SSIM classical", "SSIM restored",
              "images worse than the input"]]
    for each in (each for each in sets if each.name in rows):
        row, rival, ours = before[each.name]["input"], best(each, before[each.name]), rows[each.name]
        kind, ssim = ("Y", "ssim_y") if each.measure == "psnr_y" else ("RGB", "ssim")
        lines.append([f"{each.name} ({each.about})", str(ours.count), kind, number(getattr(row, each.measure)),
                      f"{number(getattr(rival[1], each.measure))} ({rival[0]})" if rival else "", number(getattr(ours, each.measure)),
                      f"{getattr(row, ssim):.4f}", f"{getattr(rival[1], ssim):.4f}" if rival else "", f"{getattr(ours, ssim):.4f}",
                      "" if each.task == "clean" else f"{ours.worse}, by up to {ours.lost:.1f} dB" if ours.worse else "0"])
    return (f"{markdown(lines)}\n\nTime for a megapixel in float32, median of three runs on {SIDE} x {SIDE} pixels, on the machine that "
            f"made this table ({machine.processor()}, threads: {torch.get_num_threads()}): {took:.1f} s.")


def number(value: float) -> str:
    """Return a PSNR as text."""
    return f"{value:.2f}" if value < 99 else "equal"


def markdown(lines: list[list[str]]) -> str:
    """Return a table; the first line is its head."""
    head, *rows = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join((head, f"|{'---|' * len(lines[0])}", *rows))


def parted(page: Path, kind: str) -> tuple[str, str]:
    """Return what stands before and after a table of a page; raises Failure without its two marks."""
    begin, content = MARKS[0].format(kind), page.read_text(encoding="utf-8") if page.is_file() else ""
    head, mark, rest = content.partition(begin)
    inside, end, tail = rest.partition(MARKS[1])
    if not mark or not end or MARKS[0].partition("{")[0] in inside:
        raise Failure(f"{page} has no lines {begin} and {MARKS[1]} between which the table stands")
    return head, tail


def put(page: Path, kind: str, text: str) -> None:
    """Replace what stands between the marks of a table in a page; raises Failure if they are missing."""
    head, tail = parted(page, kind)
    files.write_text(page, f"{head}{MARKS[0].format(kind)}\n\n{text}\n\n{MARKS[1]}{tail}")
