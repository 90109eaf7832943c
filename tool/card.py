"""Model cards: README.md of a model's folder, with the head that model hubs read. What no file states is given as not recorded."""
import json
import re
from pathlib import Path
from typing import NamedTuple

import model
from data.licences import licence
from data.sets import DATASETS
from model import weights
from model.method import Method
from runtime import VERSION, experiment
from runtime.errors import UserError, short

UNKNOWN = "not recorded"
TRAINING = ("loss", "epochs", "batch_size", "patch_size", "optimizer", "lr", "schedule", "seed", "pre_train", "teacher")


class Source(NamedTuple):
    """A model that is exported: its file, the loaded method, the flags it was built from, the note in its file."""
    file: Path
    method: Method
    flags: dict
    note: dict


def text(source: Source, title: str, name: str, digest: str, found: str) -> str:
    """Return a model card for the weights `name` with the SHA-256 `digest`; `found` says how they were checked."""
    stored = _experiment(source.file)
    train = _sets(source.note.get("data_train") or stored.get("data_train"))
    tasks = sorted({DATASETS[base].task for base in map(_base, train) if base in DATASETS} - {""})
    flags = {key: source.flags[key] for key in weights.known(source.flags["model"])}
    package, parameters = model.package(source.flags["model"]), sum(value.numel() for value in source.method.network.parameters())
    about = str(package.__doc__ or "").partition("\n")[0]
    score = source.note.get("score")
    return "\n".join([
        "---",
        "license: other",
        "library_name: unweather",
        "pipeline_tag: image-to-image",
        *_list("tags", ["image-restoration", "pytorch", source.flags["model"], *tasks]),
        *_list("datasets", list(dict.fromkeys(base for base in map(_base, train) if re.fullmatch(r"[A-Za-z0-9][\w.-]*", base)))),
        "---",
        "",
        f"# {_plain(title)}",
        "",
        f"{_plain(about)}",
        "",
        f"- Model: {_code(source.flags['model'])} of Unweather {VERSION}, {parameters:,} parameters",
        f"- Arguments: {', '.join(f'{key} {_code(value)}' for key, value in flags.items()) or UNKNOWN}",
        f"- Trained for: {', '.join(tasks) or UNKNOWN}",
        "- Input: RGB images of any size, (B, 3, H, W) in [0, 1]; result: of the same size, not clipped",
        "",
        "## Use",
        "",
        f"    python main.py --test_only --pre_train {name} --dir_demo my_photos --save_results",
        "",
        "```python",
        "import unweather",
        "",
        f'model = unweather.load("{name}")',
        'unweather.write("restored.png", unweather.restore(model, unweather.read("photo.jpg")))',
        "```",
        "",
        "## Numbers",
        "",
        *_numbers(source.file),
        "",
        "## Training",
        "",
        f"- Epoch of these weights: {_known(source.note.get('epoch'))}",
        f"- Score by which they were chosen: {_known(round(score, 4) if isinstance(score, float) else score)}",
        *(f"- {key}: {_known(stored.get(key))}" for key in TRAINING if key not in ("pre_train", "teacher") or stored.get(key)),
        "",
        "Data and what is known of their licences:",
        "",
        *([f"- {_code(each)}: {licence(each)}" for each in train] or [f"- {UNKNOWN}"]),
        f"- Images used of them: {_known(source.note.get('data_range') or stored.get('data_range'))}",
        "",
        "## Limits",
        "",
        "- The numbers hold for the named images and protocols. Other photos, cameras and weathers may give other results.",
        "- A network changes details, also where nothing was wrong. Do not use restored images as evidence.",
        "- Licence of the weights: not recorded; it depends on the data above and on the authors of the method.",
        "",
        "## File",
        "",
        f"- {_code(name)}, SHA-256 {_code(digest)}",
        f"- Checked when it was written: {_plain(found)}",
        "",
    ])


def _experiment(file: Path) -> dict:
    """Return the flags of the experiment in which a model file lies, {} if there are none or they are damaged."""
    folder = file.absolute().parent.parent
    try:
        return experiment.stored_args(folder) if file.absolute().parent.name == "model" else {}
    except UserError:
        return {}


def _numbers(file: Path) -> list[str]:
    """Return the numbers that a test of this very file left in its experiment, as a table."""
    place = file.absolute()
    try:
        entries = json.loads((place.parent.parent / "metrics.json").read_text(encoding="utf-8"))
        rows = [_row(name, entry) for name, entry in entries.items() if Path(entry["weights"]).parts[-3:] == place.parts[-3:]
                and "psnr" in entry]
    except (OSError, ValueError, RecursionError, AttributeError, TypeError, KeyError):
        rows = []
    head = [f"Measured with {_code('/'.join(place.parts[-3:]))}, the file from which this one was written.", "",
            "| data set | images | PSNR in dB (95 % interval) | SSIM | PSNR, SSIM of the input | protocol |", "|---|---|---|---|---|---|"]
    return [*head, *rows] if rows else [f"{UNKNOWN.capitalize()}."]


def _row(name: str, entry: dict) -> str:
    low, high = entry["interval95"]["psnr"]
    before = f"{entry['input_psnr']:.2f}, {entry['input_ssim']:.4f}" if "input_psnr" in entry else UNKNOWN
    images = f"{entry['count']:d}" + (f" ({_code(entry['subset'])})" if entry["subset"] != "all" else "")
    return (f"| {_code(name)} | {images} | {entry['psnr']:.2f} ({low:.2f} to {high:.2f}) | {entry['ssim']:.4f} | {before} "
            f"| {_code(entry['protocol']['name'])} version {_code(entry['protocol']['version'])}, {_code(str(entry['channel']).upper())} |")


def _sets(joined: object) -> list[str]:
    return [name for name in joined.split("+") if name] if isinstance(joined, str) else []


def _base(name: str) -> str:
    return name.partition("@")[0]


def _known(value: object) -> str:
    return UNKNOWN if value in (None, "", []) else _code(value)


def _code(value: object) -> str:
    """Return a value as inline code of Markdown, also inside a table."""
    return f"`{_legible(value).replace('`', chr(39)).replace('|', '¦') or ' '}`"


def _plain(value: object) -> str:
    """Return a value as text of Markdown without markup."""
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", _legible(value))


def _legible(value: object) -> str:
    """Return a value as a short text of one line without control characters."""
    return "".join(sign if sign.isprintable() else "?" for sign in short(value, 200))


def _list(key: str, values: list[str]) -> list[str]:
    """Return a list of texts in YAML, each in double quotes; no lines for an empty list."""
    return [f"{key}:", *(f"- {json.dumps(_legible(value), ensure_ascii=False)}" for value in values)] if values else []
