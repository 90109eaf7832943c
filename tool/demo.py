"""make demo: restore photos with the weights of the zoo, then train on snowy photos and test on held-out ones."""
import sys
from pathlib import Path

if __name__ == "__main__":                # before torch is imported
    from runtime import waiting
    waiting.before_torch()

import numpy as np

import main
from data import demo, image
from runtime import experiment, zoo
from runtime.errors import UserError

SETS = [f"Demo{weather.capitalize()}" for weather in demo.WEATHERS]
RESTORE = ["--test_only", "--pre_train", zoo.DEFAULT, "--data_test", "+".join(SETS), "--save", "demo_zoo", "--save_results", "--save_gt"]
TRAIN = ["--template", "demo", "--reset"]
TEST = ["--test_only", "--pre_train", "experiment/demo/model/model_best.pt", "--data_test", "DemoSnow",
        "--save", "demo", "--save_results", "--save_gt"]


def run() -> int:
    """Run the three commands of main.py and print what they did; return the exit status."""
    print("1. Photos restored with weights that come with the program, which have not seen them")
    if status := command(RESTORE):
        return status
    sheet([(experiment.ROOT / "demo_zoo", name, f"cat_{weather}1") for name, weather in zip(SETS, demo.WEATHERS)],
          experiment.ROOT / "demo_zoo" / "demo.png")
    check_own("demo")
    print("\n2. A small network trained for one kind of snow")
    for flags in (TRAIN, TEST):
        if status := command(flags):
            return status
    folder = experiment.ROOT / "demo"
    print(f"\n{'held-out photo':16}{'snowy':>10}{'affine fit':>12}{'restored':>10}{'gain':>8}   PSNR in dB, RGB, 8 bits, no border")
    rows = [row(item, folder / "results-DemoSnow") for item in demo.opener("snow")(Path(), "test")]
    for name, snowy, affine, restored in [*rows, ("mean", *np.mean([row[1:] for row in rows], axis=0))]:
        print(f"{name:16}{snowy:10.2f}{affine:12.2f}{restored:10.2f}{restored - snowy:+8.2f}")
    print("affine fit: the snowy photo with the best scale and offset for each colour channel (the limit for a change of brightness alone)")
    sheet([(folder, "DemoSnow", name) for name, *_ in rows[::2]], folder / "demo.png")
    print(f"\nimages: {folder}_zoo/demo.png (snow, rain, haze and noise: degraded, restored, clean), {folder}_zoo/report.html,\n"
          f"        {folder}/demo.png (snowy, restored, clean), {folder}/report.html, {folder}/curves.png")
    return 0


def check_own(name: str) -> None:
    """Raise UserError if experiment/NAME, which a demo begins anew, is a training on other images than the embedded ones."""
    folder = experiment.folder_of(name)
    trained = str(experiment.stored_args(folder).get("data_train", SETS[0]))
    if not set(trained.split("+")) <= set(SETS):
        raise UserError(f"{folder} is a training on {trained}, which the demo would delete; give this folder another name")


def command(flags: list[str]) -> int:
    """Print and run a command of main.py; return its exit status."""
    print(f"\n$ python main.py {' '.join(flags)}", flush=True)
    return main.main(flags)


def row(item, results: Path) -> tuple[str, float, float, float]:
    """Return (name, PSNR of the snowy photo, PSNR of its best affine fit, PSNR of the restored photo)."""
    snowy, clean = item.images["input"], item.images["image"]
    restored = image.read(results / f"{item.name}.png")
    return item.name, psnr(snowy, clean), psnr(affine_fit(snowy, clean), clean), psnr(restored, clean)


def affine_fit(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return a·x + b, rounded to 8 bits, with the least-squares a and b of each colour channel."""
    fitted = np.empty(x.shape)
    for channel in range(3):
        a, b = np.polyfit(x[..., channel].ravel().astype(float), target[..., channel].ravel().astype(float), 1)
        fitted[..., channel] = a * x[..., channel] + b
    return np.clip(np.rint(fitted), 0, 255).astype(np.uint8)


def psnr(x: np.ndarray, target: np.ndarray) -> float:
    """Return the PSNR in dB of two uint8 images."""
    return float(10 * np.log10(255**2 / np.mean((x.astype(float) - target) ** 2)))


def sheet(images: list[tuple[Path, str, str]], file: Path) -> None:
    """Write test images, each given by experiment, data set and name, below each other: degraded, restored and clean side by side."""
    strips = [image.read(folder / f"compare-{data_set}" / f"{name}.png")[:300] for folder, data_set, name in images]
    width = max(strip.shape[1] for strip in strips)
    image.write(file, np.vstack([np.pad(s, ((0, 4), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips]))


if __name__ == "__main__":
    try:
        sys.exit(run())
    except UserError as error:
        sys.exit(main.print_error(error, 2))
