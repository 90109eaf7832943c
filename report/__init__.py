"""The result page experiment/<save>/report.html, which can be built again at any time from the other files of the experiment."""
import base64
import functools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from report import benchmarks, curves, facts, page
from report.thumbnail import FORMAT, LIMIT, Album, sample
from runtime import files, process
from runtime.files import natural

__all__ = ["Album", "compare", "write"]
BYTES = 10_000_000                        # approximate limit for all thumbnails of a page
VIEWS = {"input": "Input", "result": "Result", "truth": "Truth", "error": "Error"}
SHEET = ("input", "result", "truth")       # the order of the images that --save_gt saves side by side
ORDERS = (("Worst first", "psnr", True), ("Best first", "psnr", False), ("Largest gain first", "gain", False),
          ("Smallest gain first", "gain", True))


def write(folder: Path) -> Path:
    """Write report.html from metrics.json, cards-*.json, log.jsonl, times.jsonl and args.json of an experiment; return its path.

    Missing or damaged files are left out, and the page lists them.
    """
    damaged: list[str] = []
    metrics = {name: entry for name, entry in _object(folder / "metrics.json", damaged).items()
               if _drawn(f"metrics.json, {name}", damaged, functools.partial(_numbers, {name: entry}))}
    flags = _object(folder / "args.json", damaged)
    flags = flags if _drawn("args.json", damaged, functools.partial(_flags, flags)) else {}
    albums = {content["data_set"]: content for content in _albums(folder, damaged)}
    found = curves.records(folder)
    charts: list[str] = []
    _drawn("log.jsonl", damaged, lambda: charts.append(_charts(found)))
    best = next((record for record in reversed(found) if record["event"] == "best"), None)
    compared: list[str] = []
    _drawn("the list of benchmarks in metrics.json", damaged, lambda: compared.append(benchmarks.tables(metrics)))
    if damaged:
        process.log().say(f"warning: the result page lacks what is damaged: {' '.join(damaged)}")
    notes = damaged
    albums = _bounded(albums, notes)
    notes += [f"There are no thumbnails of {name}." for name in metrics if name not in albums]
    notes += [f"{name} was restored without clean images: {page.conditions(entry, False)}." for name, entry in metrics.items()
              if not page.measured(entry)]
    cards = [_card(content, card, folder) for content in albums.values() for card in content["cards"]]
    data = {"cards": cards, "protocol": _protocols(albums.values()), "orders": _orders(cards, ORDERS), "left": "input", "right": "result"}
    about = facts.network(metrics, flags) | ({"Best epoch": best["chosen"].removeprefix("epoch ")} if best else {})
    text = page.build(folder.name, about | facts.circumstances(folder, metrics), "".join([*compared, page.numbers(metrics, best)]),
                      "".join(charts), data, notes, flags)
    path = folder / "report.html"
    files.write_text(path, text)
    return path


def compare(path: Path, runs: dict[str, Path], found: dict[str, dict[str, dict[str, float]]], name: str, about: str,
            rows: list[dict[str, str]], flags: list[dict[str, str]]) -> Path:
    """Write a page with the results of several runs to `path` and return `path`.

    runs: the output directory of each run by name (or its CSV file); found: the numbers of each run, image -> measure -> value;
    name: the data set; about: how the numbers were measured; rows: the rows of the table, {heading: text}; flags: likewise, a row for
    each flag that differs between the runs.
    """
    notes: list[str] = []
    albums = {}
    for run, folder in runs.items():
        content = _album(folder / f"cards-{name}.json", notes) if (folder / f"cards-{name}.json").is_file() else None
        if content:
            albums[run] = {card["name"]: card | {"album": content, "place": folder} for card in content["cards"]}
        else:
            notes.append(f"The run {run} has no thumbnails of {name or 'its images'}.")
    names = sorted(set.intersection(*map(set, (*albums.values(), *found.values()))), key=natural) if albums else []
    equal = [picture for picture in names if len({(album[picture]["height"], album[picture]["width"]) for album in albums.values()}) == 1]
    if len(equal) < len(names):
        notes.append(f"{len(names) - len(equal)} images do not have the same size in all runs and are left out.")
    cards = [_compared(name, {run: album[picture] for run, album in albums.items()}, found, picture, path.parent)
             for picture in equal]
    kept = {card["name"] for card in _fitting(cards, LIMIT, BYTES)}
    if len(kept) < len(cards):
        notes.append(f"{len(kept)} of {len(cards)} images are shown: those with the lowest and highest PSNR, and others evenly spaced.")
    base, *others = runs
    orders = [(f"{words} gain of {run} over {base}", f"over {run}", words == "Smallest")
              for run in others for words in ("Largest", "Smallest")]
    orders += [(f"Worst first by {run}", f"psnr {run}", True) for run in runs]
    data = {"cards": [card for card in cards if card["name"] in kept], "protocol": about.partition(",")[0].removeprefix("protocol "),
            "orders": _orders(cards, orders),
            "left": f"result {base}" if base in albums else "input", "right": f"result {next((r for r in others if r in albums), base)}"}
    title = " and ".join(runs) if len(runs) == 2 else f"{len(runs)} runs"
    tables = page.table(rows, "Runs")
    if flags:
        tables += f"<h3>Flags that differ</h3>{page.table(flags, 'Flags that differ', text=True)}"
    measured = {"Data set": name or "unknown", "Measured": about, "Compared with": base}
    files.write_text(path, page.build(title, measured, tables, "", data, notes, {}))
    return path


def _drawn(what: str, notes: list[str], draw: Callable[[], object]) -> bool:
    """Return whether a part of the page can be drawn from a file, which may be damaged in any way; if not, add a note."""
    try:
        draw()
    except Exception:                     # of any type, because the values may be of any type
        notes.append(f"{what} is damaged and left out.")
        return False
    return True


def _numbers(metrics: dict) -> None:
    facts.network(metrics, {})
    page.numbers(metrics)


def _flags(flags: dict) -> None:
    facts.network({}, flags)
    page.all_flags(flags)


def _object(path: Path, notes: list[str]) -> dict:
    """Return the object of a JSON file; {} and a note when it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        notes.append(f"{path.name} is missing or damaged and left out.")
        return {}
    return content


def _albums(folder: Path, notes: list[str]) -> list[dict]:
    """Return the contents of the undamaged card files of an experiment."""
    return [content for path in sorted(folder.glob("cards-*.json"), key=natural) if (content := _album(path, notes))]


def _album(path: Path, notes: list[str]) -> dict | None:
    """Return the content of a file that an Album wrote; None and a note when it is missing or damaged in any part."""
    content = _object(path, notes)
    try:
        assert not content or (content["format"] == FORMAT and isinstance(content["saved"], list) and isinstance(content["protocol"], dict))
        for card in content.get("cards", ()):
            assert isinstance(card["name"], str) and card["height"] > 0 and card["width"] > 0
            assert all(math.isfinite(value) for value in card["numbers"].values())
            assert {"input", "result"} <= set(card["views"]) <= set(VIEWS) and isinstance(card.get("before", ""), str)
            for value in card["views"].values():
                base64.b64decode(value, validate=True)
        if not isinstance(content.get("data_set"), str) or content["count"] < len(content["cards"]):
            return None
        page.embedded([[_card(content, card, path.parent) for card in content["cards"]], content["count"], _protocols([content])])
        return content
    except Exception:                     # see _drawn
        notes.append(f"{path.name} is missing or damaged and left out.")
        return None


def _bounded(albums: dict[str, dict], notes: list[str]) -> dict[str, dict]:
    """Return the albums with at most as many cards as fit on the page; add a note for each album that is reduced to a sample."""
    room = LIMIT // max(len(albums), 1), BYTES // max(len(albums), 1)
    whole = sum(len(each["cards"]) for each in albums.values()) <= LIMIT and _size(albums.values()) <= BYTES
    result = {}
    for name, content in albums.items():
        cards = content["cards"] if whole else _fitting(content["cards"], *room)
        result[name] = content | {"cards": cards}
        if len(cards) < content["count"]:
            notes.append(f"Of the {content['count']} images of {name}, {len(cards)} are shown: "
                         + ("a quarter with the lowest PSNR, a quarter with the highest, and others evenly spaced by name."
                            if any(card["numbers"] for card in cards) else "evenly spaced."))
    return result


def _fitting(cards: list[dict], count: int, size: int) -> list[dict]:
    """Return a sample of at most `count` cards with about `size` bytes."""
    total = max(_size([{"cards": cards}]), 1)
    return sample(cards, max(min(count, len(cards) * size // total), 4))


def _size(albums) -> int:
    return sum(len(_source(view)) for album in albums for card in album["cards"] for view in _views(card))


def _views(card: dict) -> list:
    return list(card["views"].values() if isinstance(card["views"], dict) else card["views"])


def _source(view: str | dict) -> str:
    return view if isinstance(view, str) else view["data"]


def _card(content: dict, card: dict, folder: Path) -> dict:
    """Return a card in the form that script.js reads."""
    numbers = card["numbers"]
    scores = {"label": "Result", **_scores(numbers)}
    values = {key: scores[key] for key in ("psnr", "gain") if key in scores}
    views = [{"key": key, "label": label, "data": card["views"][key], **_full(content, card, folder, folder, key)}
             for key, label in VIEWS.items() if key in card["views"]]
    return {"set": content["data_set"], "name": card["name"], "width": card["width"], "height": card["height"], "values": values,
            "numbers": numbers, "scores": [scores] if values else [], "views": views}


def _scores(numbers: dict[str, float]) -> dict[str, float]:
    """Return the numbers of one result that a card shows, as far as they exist: psnr, ssim, those of the input, and the gain in PSNR."""
    scores = {key: numbers[key] for key in ("psnr", "ssim", "input_psnr", "input_ssim") if key in numbers}
    return scores | ({"gain": numbers["psnr"] - numbers["input_psnr"]} if {"psnr", "input_psnr"} <= numbers.keys() else {})


def _compared(name: str, cards: dict[str, dict], found: dict[str, dict], picture: str, place: Path) -> dict:
    """Return the card of one image with the results of all runs; input and target are taken from the first run."""
    first = next(iter(cards.values()))
    views = []
    for key, words in (("input", "Input"), ("result", ""), ("truth", "Truth"), ("error", "Error of ")):
        for run, card in cards.items() if key in ("result", "error") else [("", first)]:
            if key in card["views"]:
                views.append({"key": f"{key} {run}".strip(), "label": f"{words}{run}", "data": card["views"][key],
                              **_full(card["album"], card, card["place"], place, key)})
    scores = [{"label": run, **_scores(table[picture])} for run, table in found.items()]
    values = {f"psnr {score['label']}": score["psnr"] for score in scores if "psnr" in score}
    base = scores[0]
    for score in scores[1:]:
        if "psnr" in score and "psnr" in base:
            values[f"over {score['label']}"] = score["over"] = score["psnr"] - base["psnr"]
    return {"set": name, "name": picture, "width": first["width"], "height": first["height"], "values": values,
            "numbers": {"psnr": base["psnr"]} if "psnr" in base else {}, "scores": scores, "views": views}


def _full(content: dict, card: dict, folder: Path, place: Path, key: str) -> dict:
    """Return the link to the full-size image of a view, {} if the test did not save it.

    href: the link from a page in `place`; of: number of images side by side in the file; at: position of this one, from 0.
    """
    single = folder / content.get("results", f"results-{content['data_set']}") / f"{card['name']}.{content.get('ending', 'png')}"
    sheet, before = folder / f"compare-{content['data_set']}" / f"{card['name']}.png", folder / card.get("before", "")
    if key == "result" and "results" in content["saved"] and single.is_file():
        path, of, at = single, 1, 0
    elif key == "input" and before.is_file():
        path, of, at = before, 1, 0
    elif key in SHEET and "compare" in content["saved"] and sheet.is_file():
        path, of, at = sheet, 3 if "truth" in card["views"] else 2, SHEET.index(key)
    else:
        return {}
    return {"full": {"href": quote(os.fsencode(os.path.relpath(path, place).replace(os.sep, "/"))), "of": of, "at": at}}


def _protocols(albums) -> str:
    """Return the names and versions of the protocols of the numbers on the cards."""
    return " or ".join(page.unique(f"{content['protocol']['name']} v{content['protocol']['version']}" for content in albums
                                   if {"name", "version"} <= content["protocol"].keys()))


def _orders(cards: list[dict], orders) -> list[dict]:
    """Return the sort orders for which the cards have values, and the order by name."""
    return [{"label": label, "key": key, "up": up} for label, key, up in orders
            if any(key in card["values"] for card in cards)] + [{"label": "Name", "key": "", "up": True}]


def _charts(found: list[dict]) -> str:
    """Return the charts of the records of log.jsonl as HTML, '' if there is nothing to draw."""
    charts = [curves.chart("Training loss", "", curves.losses(found))]
    for measured, lines, inputs in curves.scores(found):
        charts.append(curves.chart("Test PSNR", f"dB, {measured}" if measured else "dB", lines,
                                   {f"input of {name}" if len(lines) > 1 else "input": value for name, value in inputs.items()}))
    return "".join(charts)
