"""make demo: train on snowy photos, test on held-out photos, print a table and save an image."""
import sys
from pathlib import Path

if __name__ == "__main__":                # before torch is imported
    from runtime import waiting
    waiting.leave_cores_to_others()

import numpy as np

import main
from data import demo, image
from runtime import experiment
from runtime.errors import UserError

TRAIN = ["--template", "demo", "--reset"]
TEST = ["--test_only", "--pre_train", "experiment/demo/model/model_best.pt", "--data_test", "DemoSnow",
        "--save", "demo", "--save_results", "--save_gt"]


def run() -> int:
    """Run the two commands of main.py, then print the table; return the exit status."""
    for flags in (TRAIN, TEST):
        print(f"\n$ python main.py {' '.join(flags)}", flush=True)
        status = main.main(flags)
        if status:
            return status
    folder = experiment.ROOT / "demo"
    print(f"\n{'held-out photo':16}{'snowy':>10}{'affine fit':>12}{'restored':>10}{'gain':>8}   PSNR in dB, RGB, 8 bits, no border")
    rows = [row(item, folder / "results-DemoSnow") for item in demo.opener("snow")(Path(), "test")]
    for name, snowy, affine, restored in [*rows, ("mean", *np.mean([row[1:] for row in rows], axis=0))]:
        print(f"{name:16}{snowy:10.2f}{affine:12.2f}{restored:10.2f}{restored - snowy:+8.2f}")
    print("affine fit: the snowy photo with the best scale and offset for each colour channel (the limit for a change of brightness alone)")
    sheet(rows, folder)
    print(f"\nimages: {folder}/demo.png (snowy, restored, clean), {folder}/results-DemoSnow/, {folder}/curves.png")
    return 0


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


def sheet(rows: list[tuple], folder: Path) -> None:
    """Write demo.png: the first test image of each photo as snowy, restored and clean image side by side."""
    strips = [image.read(folder / "compare-DemoSnow" / f"{name}.png")[:300] for name, *_ in rows[::2]]
    width = max(strip.shape[1] for strip in strips)
    image.write(folder / "demo.png", np.vstack([np.pad(s, ((0, 4), (0, width - s.shape[1]), (0, 0)), constant_values=255)
                                               for s in strips]))


if __name__ == "__main__":
    try:
        sys.exit(run())
    except UserError as error:
        sys.exit(main.print_error(error, 2))
