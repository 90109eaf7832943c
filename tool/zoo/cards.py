"""The cards of the zoo: zoo/NAME/README.md, written from the weights, plans, recipes, notes.md and numbers of tests."""
import hashlib
import json
from pathlib import Path

import model
from data import image
from data.licences import licence
from model import weights
from restore.restorer import Restorer
from runtime import files, process, zoo
from tool.zoo import pictures, prepare, recipes

# a set of the zoo's trainings -> the sets from which its images come
ORIGIN = {prepare.PHOTOS: ("BSDS500",)}
STARTS = {                                # files of released weights that recipes name
    "sapnet_official.pth": "`sapnet_official.pth`: SAPNet's released weights (MIT), trained on RainTrainH",
    "vgg16_features_rgb01.pth": "`vgg16_features_rgb01.pth`, for the loss: the VGG-16 that its authors released for Caffe (Creative "
                                "Commons Attribution), trained on ImageNet, under the names of torchvision",
}


def write(name: str, numbers: str) -> Path:
    """Write the card of a network with its pictures and return its path; `numbers` is the table of its tests."""
    place = zoo.ROOT / name
    path = place / "README.md"
    shown = failures(name, place)
    files.write_text(path, text(name, place, numbers, shown))
    return path


def failures(name: str, place: Path) -> list[str]:
    """Write, for each task of a network, the strip of the photo that it improves least; return the lines that show them."""
    lines = []
    with process.session(True, 0):
        found = list(pictures.strips(Restorer(weights.load(zoo.PREFIX + name)), tuple(recipes.tasks(recipes.flags(name)))))
        for kind in dict.fromkeys(strip.kind for strip in found):
            worst = min((strip for strip in found if strip.kind == kind), key=lambda strip: strip.gain)
            file = place / f"least_{kind}.jpg"
            image.write(file, worst.pixels)
            lines += [f"![{worst.words}]({file.name})", "", f"*{worst.words[0].upper()}{worst.words[1:]}.*", ""]
    return lines


def text(name: str, place: Path, numbers: str, shown: list[str]) -> str:
    """Return the card of a network whose folder is `place`; notes.md there says in words what it does and where it fails.

    numbers: the table of its tests; shown: the lines of the pictures of what it restores least.
    """
    file = place / zoo.FILE
    source, stages = weights.read(file), recipes.stages(name)
    size = sum(value.numel() for value in source.state.values())
    trained = [part for stage in stages for part in recipes.parts(recipes.flags(stage))]
    sources = list(dict.fromkeys(each for base, _ in trained for each in ORIGIN.get(base, (base,))))
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
        f"    python -m tool.zoo test {name}        # the numbers below; UNWEATHER_DATA names the images (docs/zoo.md)",
        "",
        f'From Python: `unweather.load("{zoo.PREFIX}{name}")`. The same folder, copied elsewhere, is read by its path.',
        "",
        "## Numbers",
        "",
        "Protocol `default` (8 bits, rounded, no border, whole images, Gaussian SSIM), float32, by `python -m tool.zoo`. Training images",
        "that show a test scene were searched and, where found, left out ([docs/zoo.md](../../docs/zoo.md#train-them)). *Classical* is the",
        "method of `tool/zoo/classical.py`, without learning, that has the highest PSNR. The last column counts images whose PSNR fell.",
        "",
        numbers,
        "",
        "## Where it helps least",
        "",
        "Of three photos of scikit-image, which no network of the zoo was trained on: for each task the one that gains least. Snow,",
        "rain and haze are synthetic and made in another way than in the training. Degraded, restored, clean; the middle of the photo",
        "in full size, PSNR of the whole photo.",
        "",
        *shown,
        "## Training",
        "",
        "In the recipes `photos` are those of BSDS500 without the ones that show a test scene. A name with `@` is a set of clean photos to",
        "which the program adds synthetic noise, rain, snow or haze, with new random parameters for every crop; the numbers after the `@`",
        "are the range of the noise level or of the strength ([data](../../docs/data.md#weather-drawn-for-every-crop)). All sets of a",
        "recipe have equal shares of the crops.",
        "",
        *(line for stage in stages for line in training(stage, alone=len(stages) == 1)),
        f"Weights: those after the last epoch ({source.note.get('epoch')}), not chosen by a test.",
        "",
        "![Loss and PSNR of the tests during the training](curves.png)",
        "",
        "## Data and licences",
        "",
        *(f"- {each}: {licence(each)}" for each in sources),
        *dict.fromkeys(f"- {STARTS[file]}" for stage in stages for file in named(recipes.flags(stage))),
        "",
        "The weights were made from these images for research. The MIT licence of the repository covers its code; it says nothing about",
        "what the owners of the images allow for weights that were trained on them. Ask them before any commercial use.",
        "",
        "## File",
        "",
        f"- `{zoo.FILE}`: {source.model} ({about.rstrip('.')}), {size:,} values in float16, vectors in float32, "
        f"{file.stat().st_size / 1e6:.1f} MB",
        f"- SHA-256: `{hashlib.sha256(file.read_bytes()).hexdigest()}`",
        "",
    ])


def named(recipe: dict) -> list[str]:
    """Return the names of the files of released weights that a recipe uses."""
    return [file for key in ("pre_train", "vgg_weights") if (file := Path(str(recipe.get(key, ""))).name) in STARTS]


def training(name: str, alone: bool) -> list[str]:
    """Return the lines about the training of a network, or of a teacher or stage that leads to one."""
    plan, recipe = files.read_json(zoo.ROOT / name / "plan.json"), recipes.flags(name)
    start = recipe.get("pre_train", "")
    return [
        *([] if alone else [f"### {name}", ""]),
        f"- Command: `make zoo NAME={name} HOURS={plan['hours']:g}` with `UNWEATHER_DATA` as [docs/zoo.md](../../docs/zoo.md) says",
        *([f"- Start: the weights `{start}`"] if start else []),
        f"- Machine: {plan['processor']}, threads: {plan.get('threads', 'not known')}; budget: {plan['hours']:g} hours, tests included",
        f"- Steps: {plan['steps']} in each of {recipe['epochs']} epochs; steps/s measured before the training: {rates(plan, recipe)}; "
        f"EMA {recipe.get('ema', 0)}",
        f"- Recipe, `zoo/{name}/args.json`: {', '.join(f'{key} `{value}`' for key, value in recipe.items())}",
        "",
    ]


def rates(plan: dict, recipe: dict) -> str:
    """Return in words the measured rate of each stage of batch and patch sizes."""
    batches, sides = (str(recipe[key]).split("-") for key in ("batch_size", "patch_size"))
    count = len(plan["rates"])            # a single value is that of all stages
    parts = zip(plan["rates"], batches * (count if len(batches) == 1 else 1), sides * (count if len(sides) == 1 else 1), strict=True)
    return ", ".join(f"{rate:.2f} with batches of {batch} crops of {side} pixels" for rate, batch, side in parts)
