"""python -m tool.zoo gallery: pictures of what zoo:aio does to photos of scikit-image, which it was not trained on, in docs/gallery/."""
import numpy as np

from data import degrade, demo, image
from model import weights
from restore.restorer import Restorer
from runtime import files, process, zoo
from tool.demo import psnr
from tool.zoo.table import put

PAGE = zoo.ROOT.parent / "docs" / "gallery.md"
FOLDER = PAGE.with_suffix("")
PHOTOS = ("cat", "astronaut", "rocket")
SHEET = ("snow_cat", "rain_rocket", "haze_cat", "noise_astronaut")
SIDE = 256                                # side in pixels of the part that is shown in full size


def run() -> None:
    """Write a strip for each weather and photo, a sheet for the README, and list the strips with their PSNR in docs/gallery.md."""
    strips: dict[str, np.ndarray] = {}
    photos = demo.photos("train") | demo.photos("test")
    files.make_folder(FOLDER)
    lines: list[str] = []
    with process.session(True, 0):
        restorer = Restorer(weights.load(zoo.DEFAULT))
        for kind in (*demo.WEATHERS, "clean"):
            lines += [f"### {kind.capitalize()}", ""]
            for number, name in enumerate(PHOTOS):
                clean = photos[name]
                before = degraded(kind, clean, number)
                after = image.to_array(restorer(image.to_tensor(before)[None])[0])
                file = FOLDER / f"{kind}_{name}.jpg"
                strips[file.stem] = strip(before, after, clean)
                image.write(file, strips[file.stem])
                words = f"{name}, {kind}: {value(before, clean)} before, {value(after, clean)} after"
                print(words)
                lines += [f"![{words}]({FOLDER.name}/{file.name})", "", f"*{words[0].upper()}{words[1:]}.*", ""]
    image.write(FOLDER / "sheet.jpg", np.vstack([strips[name] for name in SHEET]))
    put(PAGE, "gallery", "\n".join(lines).strip())


def degraded(kind: str, clean: np.ndarray, number: int) -> np.ndarray:
    """Return a photo (H, W, 3) uint8 with the weather of the embedded sets, which the network was not trained with, or unchanged."""
    if kind == "clean":
        return clean
    result = getattr(degrade, kind)(clean / 255, np.random.default_rng((9, number)))
    return np.rint((result[0] if kind == "snow" else result) * 255).astype(np.uint8)


def strip(*images: np.ndarray) -> np.ndarray:
    """Return the middle SIDE x SIDE pixels of images side by side."""
    top, left = ((side - SIDE) // 2 for side in images[0].shape[:2])
    return np.hstack([np.pad(each[top:top + SIDE, left:left + SIDE], ((0, 4), (0, 4), (0, 0)), constant_values=255) for each in images])


def value(image: np.ndarray, clean: np.ndarray) -> str:
    """Return the PSNR of an image as text."""
    return "equal" if np.array_equal(image, clean) else f"{psnr(image, clean):.2f} dB"
