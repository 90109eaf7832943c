"""python -m tool.zoo gallery: pictures of what zoo:aio does to photos of scikit-image, which it was not trained on, in docs/gallery/."""
import numpy as np

from data import demo, image
from model import weights
from restore.restorer import Restorer
from runtime import files, process, zoo
from tool.zoo import pictures
from tool.zoo.table import put

PAGE = zoo.ROOT.parent / "docs" / "gallery.md"
FOLDER = PAGE.with_suffix("")
SHEET = ("snow_cat", "rain_rocket", "haze_cat", "noise_astronaut")


def run() -> None:
    """Write a strip for each weather and photo, a sheet for the README, and list the strips with their PSNR in docs/gallery.md."""
    shown: dict[str, np.ndarray] = {}
    files.make_folder(FOLDER)
    lines: list[str] = []
    with process.session(True, 0):
        restorer = Restorer(weights.load(zoo.DEFAULT))
        for strip in pictures.strips(restorer, (*demo.WEATHERS, "clean")):
            if strip.photo == pictures.PHOTOS[0]:
                lines += [f"### {strip.kind.capitalize()}", ""]
            file = FOLDER / f"{strip.kind}_{strip.photo}.jpg"
            shown[file.stem] = strip.pixels
            image.write(file, strip.pixels)
            print(strip.words)
            lines += [f"![{strip.words}]({FOLDER.name}/{file.name})", "", f"*{strip.words[0].upper()}{strip.words[1:]}.*", ""]
    image.write(FOLDER / "sheet.jpg", np.vstack([shown[name] for name in SHEET]))
    put(PAGE, "gallery", "\n".join(lines).strip())
