"""Pair degraded files with clean files, by folder layouts or by lists."""
import csv
import functools
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from contract import Item
from data import headers, image
from data.source import View
from runtime import process
from runtime.errors import UserError, short
from runtime.files import natural

PARTS = {"train": ("train", "training", "our485"), "test": ("test", "testing", "test1", "eval15")}   # folders of separate parts


class Layout(NamedTuple):
    """Folders of a data set and the rule that pairs their files; upper and lower case in folder names are equal.

    `pattern` must match the stem of an input; `partner` is the template that makes the stem of the clean file from the match.
    view: 'sides' for one file with both images (left clean, right degraded), 'centre' for clean images that may be larger
    than the input, 'clean' for clean images only. Folders that begin with '*/' are in every subfolder, as in a set with a folder
    for each scene; its name is put before the names of the images. '{name}' is the name of the set, '{part}' train or test.
    """
    input: str
    target: str = ""
    mask: str = ""
    pattern: str = "(.+)"
    partner: str = r"\1"
    view: str = ""

    def __str__(self) -> str:
        if self.view in ("sides", "clean"):
            return f"{self.input}/ ({'clean and degraded side by side' if self.view == 'sides' else 'clean photos'})"
        rule = "" if self.partner == r"\1" else f", {self.pattern} to {self.partner}"
        return f"{self.input}/ + {self.target}/{f' (+ {self.mask}/)' if self.mask else ''}{rule}"


INPUT_TARGET = Layout("input", "target", "mask")
EDSR = Layout("{name}_train_LR_bicubic/x1", "{name}_train_HR", "{name}_train_EDGE")


def find(root: Path, split: str, layouts: tuple[Layout, ...] = (INPUT_TARGET, EDSR)) -> tuple[list[Item], bool]:
    """Return the items of a data set for 'train' or 'test', and whether they come from a separate part (train/, test/).

    The first layout whose folders exist is used. Raises UserError if none fits or images have no partner.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; put the data set there or specify another directory with --dir_data")
    parts = [place for place in (locate(root, name) for name in PARTS[split]) if place]
    for base in (*parts, root):
        for layout in layouts:
            filled = _filled(layout, root.name, split)
            if _fits(base, filled):
                return items(base, filled), base != root or "{part}" in layout.input
    for base in (*parts, root):
        for layout in layouts:
            _check_pattern(base, layout, root.name)
    raise UserError(f"{root} does not have a known folder layout; it needs "
                    f"{' or '.join(in_words(layout, root.name, split) for layout in layouts)}{_no_truth(root)}")


def _filled(layout: Layout, name: str, split: str) -> Layout:
    """Return a layout with its folders for the name of a set and train or test."""
    return layout._replace(**{key: getattr(layout, key).format(name=name, part=split) for key in ("input", "target", "mask")})


def in_words(layout: Layout, name: str, split: str = "train") -> str:
    """Return the folders of a set and the rule that pairs its files, as text."""
    return str(_filled(layout, name, split))


def _no_truth(folder: Path) -> str:
    """Return how images without clean ones are restored, if the folder holds images, else ''."""
    holds = folder.is_dir() and image.listing(folder)
    return f"; to restore images without clean ones: --test_only --dir_demo {folder} --data_test Demo --save_results" if holds else ""


def locate(root: Path, relative: str) -> Path | None:
    """Return the path of a folder below root, ignoring upper and lower case, or None if it does not exist."""
    for part in Path(relative).parts:
        if not (root / part).is_dir():
            part = next((entry.name for entry in root.iterdir() if entry.is_dir() and entry.name.lower() == part.lower()), None)
            if part is None:
                return None
        root = root / part
    return root


def _groups(base: Path, layout: Layout) -> list[Path]:
    """Return the subfolders that have the folders of a layout that begins with '*/'; those of a part (train, test) are no groups."""
    parts = {name for names in PARTS.values() for name in names}
    folders = sorted((each for each in base.iterdir() if each.is_dir() and each.name.lower() not in parts), key=natural)
    return [folder for folder in folders if _fits(folder, _inside(layout))]


def _inside(layout: Layout) -> Layout:
    return layout._replace(input=layout.input.removeprefix("*/"), target=layout.target.removeprefix("*/"))


def _fits(base: Path, layout: Layout) -> bool:
    if layout.input.startswith("*/"):
        return bool(_groups(base, layout))
    folder, target = locate(base, layout.input), locate(base, layout.target)
    if layout.target and layout.target != layout.input and (folder or target) and layout.pattern == "(.+)":
        return True                           # one of the two is enough: `items` raises an error that names the missing one
    return bool(folder and target) and any(re.fullmatch(layout.pattern, Path(name).stem) for name in image.names_in(folder))


def _check_pattern(base: Path, layout: Layout, name: str) -> None:
    """Raise UserError if both folders of a layout exist and the pattern matches no file of the first one."""
    folder, target = locate(base, layout.input), locate(base, layout.target)
    files = image.listing(folder) if folder and target and layout.target not in ("", layout.input) else []
    if files:
        raise UserError(f"the pattern '{layout.pattern}' of the data set {name} matches no file name (without its ending) in {folder}: "
                        f"{_shortened([path.name for path in files])}")


def items(base: Path, layout: Layout) -> list[Item]:
    """Pair the files of a layout's folders below base; UserError if an input has no clean partner."""
    if layout.input.startswith("*/"):
        return [item._replace(name=f"{group.name}_{item.name}") for group in _groups(base, layout)
                for item in items(group, _inside(layout))]
    if layout.view == "clean":
        return [Item(stem, {"image": path}) for stem, path in _by_stem(base, layout.input, "clean").items()]
    inputs = _by_stem(base, layout.input, "degraded")
    if layout.view == "sides":
        return [Item(stem, {"input": View(path, "right"), "image": View(path, "left")}) for stem, path in inputs.items()]
    inputs = {stem: path for stem, path in inputs.items() if re.fullmatch(layout.pattern, stem)}
    clean = _by_stem(base, layout.target, "clean")
    masks = _by_stem(base, layout.mask, "mask") if layout.mask and locate(base, layout.mask) else {}
    partners = {stem: re.fullmatch(layout.pattern, stem).expand(layout.partner) for stem in inputs}
    if locate(base, layout.input) != locate(base, layout.target):            # in some copies of a set both files have the input's name
        partners = {stem: name if name in clean else stem for stem, name in partners.items()}
    alone = [stem for stem, name in partners.items() if name not in clean]
    if alone:
        expected = " and ".join(f"{inputs[stem].name} needs {partners[stem]}{inputs[stem].suffix}" for stem in alone[:2])
        raise UserError(f"{len(alone)} of {len(inputs)} images in {locate(base, layout.input)} have no partner in "
                        f"{locate(base, layout.target)}: {_names(inputs, alone)}; by their names {expected} (or another image format), "
                        f"but that folder holds {_shortened([path.name for path in clean.values()], 2)}")
    spare = sorted(set(clean) - set(partners.values()) - set(inputs), key=natural)
    if spare:
        process.log().say(f"{len(spare)} images in {locate(base, layout.target)} have no degraded partner and are not used: "
                          f"{_names(clean, spare)}")
    if layout.view == "centre":
        headers.scan([str(path) for path in (*inputs.values(), *clean.values())])
    size_of = functools.cache(headers.size)                                  # a clean image may have many hazy ones
    found = []
    for stem, path in inputs.items():
        target = clean[partners[stem]]
        images = {"input": path, "image": _centred(target, path, size_of) if layout.view == "centre" else target}
        if masks.get(stem):
            images["mask"] = masks[stem]
        found.append(Item(stem, images))
    return found


def _centred(target: Path, path: Path, size_of: Callable[[Path], tuple[int, int]]) -> Path | View:
    try:
        size, larger = size_of(path), size_of(target)
    except UserError:                     # told by the check of sizes, unless the experiment lists the image as damaged
        return target
    return View(target, "centre", size) if larger != size and all(a >= b for a, b in zip(larger, size)) else target


def _names(files: dict[str, Path], stems: list[str]) -> str:
    return _shortened([files[stem].name for stem in stems])


def _shortened(names: list[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _by_stem(base: Path, relative: str, what: str) -> dict[str, Path]:
    """Return the images of a folder by stem, in natural order; UserError if there are none or two have the same stem."""
    folder = locate(base, relative)
    if not folder:
        hint = _no_truth(locate(base, "input") or base) if what == "clean" else ""
        raise UserError(f"there is no folder {base / relative}, which should contain the {what} images{hint}")
    stems: dict[str, Path] = {}
    for path in image.listing(folder):
        if path.stem in stems:
            raise UserError(f"two files have the same name without extension: {stems[path.stem]} and {path.name}; keep one of them")
        stems[path.stem] = path
    if not stems:
        raise UserError(f"{folder} holds no image; known file types: {', '.join(sorted(image.EXTENSIONS))}")
    return stems


def listed(path: Path, base: Path, photos: tuple[str, ...] = ()) -> list[Item]:
    """Read a list of pairs: JSON `[[clean, degraded], ...]`, or CSV lines `clean,degraded` (or with `|`).

    JSON paths are relative to the working directory; CSV paths to `base`, also with a leading slash. A clean image below a
    folder named in `photos` gets no 'input'; noise is added to it later. Raises UserError if the list is unreadable, has the
    wrong form, is empty or names missing files.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path}: {error}") from error
    if "\0" in text or "\\u0000" in text:
        raise UserError(f"the list {path} contains a NUL character, which no path may contain")
    rows = _json_rows(text, path) if path.suffix.lower() == ".json" else _csv_rows(text, path, base)
    alone = [bool(set(photos) & set(clean.parts)) for clean, _ in rows]
    missing = [str(file) for pair, single in zip(rows, alone) for file in pair[:1 if single else 2] if not file.is_file()]
    if missing:
        raise UserError(f"{len(missing)} files of the list {path} are missing: {_shortened(missing)}")
    if not rows:
        raise UserError(f"the list {path} holds no pair")
    often = Counter(degraded.stem for _, degraded in rows)
    return [Item(f"{degraded.stem}_{number}" if often[degraded.stem] > 1 else degraded.stem,
                 {"image": clean} if single else {"input": degraded, "image": clean})
            for number, ((clean, degraded), single) in enumerate(zip(rows, alone), 1)]


def _json_rows(text: str, path: Path) -> list[tuple[Path, Path]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 2 and all(isinstance(x, str) for x in row)
                                             for row in rows):
        raise UserError(f"{path} is not a list of pairs; the required form is [[\"clean.png\", \"degraded.png\"], ...]")
    return [(Path(clean), Path(degraded)) for clean, degraded in rows]


def _csv_rows(text: str, path: Path, base: Path) -> list[tuple[Path, Path]]:
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        rows = [[field.strip() for field in row] for row in csv.reader(line.replace("|", ",") for line in lines)]
    except csv.Error as error:            # a field of more than 131,072 characters, which is no path
        raise UserError(f"{path} is not a list of lines clean,degraded: {error}") from error
    for number, row in enumerate(rows, 1):
        if len(row) != 2 or not all(row):
            raise UserError(f"{path}, line {number}: '{short(lines[number - 1])}' is not of the form clean,degraded")
    if rows and rows[0][0].lower() in ("target", "clean", "gt"):          # a header line, not a pair
        rows = rows[1:]
    return [tuple(base / field.lstrip("/") for field in row) for row in rows]

