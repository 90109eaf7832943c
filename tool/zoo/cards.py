"""The cards of the zoo: zoo/NAME/README.md, written from the weights, the plan, the recipe, notes.md and the numbers of the tests."""
import hashlib
import json
from pathlib import Path

import model
from data.licences import licence
from model import weights
from runtime import files, zoo
from tool.zoo import prepare, recipes

# a set of the zoo's trainings -> the sets from which its images come
ORIGIN = {prepare.PHOTOS: ("BSDS500",)}


def write(name: str, numbers: str) -> Path:
    """Write the card of a network and return its path; `numbers` is the table of its tests."""
    place = zoo.ROOT / name
    path = place / "README.md"
    files.write_text(path, text(name, place, numbers))
    return path


def text(name: str, place: Path, numbers: str) -> str:
    """Return the card of a network whose folder is `place`; notes.md there says in words what it does and where it fails."""
    file = place / zoo.FILE
    source, plan, recipe = weights.read(file), zoo.read_json(place / "plan.json"), recipes.flags(name)
    size = sum(value.numel() for value in source.state.values())
    sources = list(dict.fromkeys(each for base, _ in recipes.parts(recipe) for each in ORIGIN.get(base, (base,))))
    about = str(model.package(source.model).__doc__ or "").partition("\n")[0]
    return "\n".join([
        "---",
        "license: other",
        "license_name: see-data",
        "library_name: unweather",
        "pipeline_tag: image-to-image",
        "tags:",
        *(f"- {json.dumps(tag)}" for tag in ("image-restoration", "pytorch", source.model)),
        "datasets:",
        *(f"- {json.dumps(each)}" for each in sources),
        "---",
        "",
        f"# {zoo.PREFIX}{name}",
        "",
        (place / "notes.md").read_text(encoding="utf-8").strip(),
        "",
        "## Use",
        "",
        f"    python -m tool.restore my_photos --weights {zoo.PREFIX}{name}",
        f"    python main.py --test_only --pre_train {zoo.PREFIX}{name} --data_test Rain100L",
        "",
        f'From Python: `unweather.load("{zoo.PREFIX}{name}")`. The same folder, copied elsewhere, is read by its path.',
        "",
        "## Numbers",
        "",
        "Protocol `default` (8 bits, rounded, no border, whole images, Gaussian SSIM), float32, by `python -m tool.zoo`; none of the",
        "images was trained on. *Classical* is the best of the methods without learning in `tool/zoo/classical.py`.",
        "",
        numbers,
        "",
        "## Training",
        "",
        f"- Command: `make zoo NAME={name} HOURS={plan['hours']:g}` with `UNWEATHER_DATA` as [docs/zoo.md](../../docs/zoo.md) says",
        f"- Machine: {plan['processor']}; {plan['hours']:g} hours, of which tests took a part",
        f"- Steps: {plan['steps']} in each of {recipe['epochs']} epochs; rate measured before: "
        f"{', '.join(f'{rate:.2f}' for rate in plan['rates'])} steps/s of each stage",
        f"- Weights: those after the last epoch ({source.note.get('epoch')}), not chosen by a test; EMA {recipe.get('ema', 0)}",
        f"- Recipe, `zoo/{name}/args.json`: {', '.join(f'{key} `{value}`' for key, value in recipe.items())}",
        "",
        "![Loss and PSNR of the tests during the training](curves.png)",
        "",
        "## Data and licences",
        "",
        *(f"- {each}: {licence(each)}" for each in sources),
        "",
        "The weights were made from these images for research. The MIT licence of the repository covers its code; it says nothing about",
        "what the owners of the images allow for weights that were trained on them. Ask them before any commercial use.",
        "",
        "## File",
        "",
        f"- `{zoo.FILE}`: {source.model} ({about.rstrip('.')}), {size:,} numbers in float16, vectors in float32, "
        f"{file.stat().st_size / 1e6:.1f} MB",
        f"- SHA-256: `{hashlib.sha256(file.read_bytes()).hexdigest()}`",
        "",
    ])
