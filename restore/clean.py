"""--do_no_harm: measure what a network changes on clean images, the targets of a test set, and on these with weak noise."""
import zlib
from dataclasses import replace

import numpy as np

import metric
from contract import TestSet
from data import image, loader, source
from restore.restorer import Restorer
from runtime import process
from runtime.errors import Interrupted
from runtime.progress import Progress

SIGMAS = (0, 5, 10)                       # standard deviations of the noise in levels of 255
LIMIT = 38.0                              # dB; a lower mean PSNR at sigma 0 causes a warning


def changes(restorer: Restorer, name: str, images: TestSet, args) -> list[dict]:
    """Restore the targets of a set, each once, with noise of every sigma; return one entry for each sigma.

    An entry has sigma, count, the mean PSNR of the images as `psnr`, and the lowest as `worst` with the name of its image as
    `worst_image`. The PSNR is that of RGB in dB, against the target without noise, with the other settings of the first
    protocol. The noise is that of data sets NAME@sigma; it depends on --seed and the names of set and image.
    """
    protocol = replace(args.protocol[0], channels=("rgb",))
    items = [item._replace(images={"input": item.images["image"]}) for item in images.items if "image" in item.images]
    items = [*{_identity(item.images["input"]): item for item in reversed(items)}.values()][::-1]
    batches = loader.test_loader(loader.Images(items, (), images.read), args.n_threads, process.rank(), process.world())
    rows: list[tuple[int, float, str]] = []
    with Progress(f"restore the clean images of {name}", len(batches) * len(SIGMAS), "times") as progress:
        restorer.progress = progress.tiles
        for batch in batches:
            target, picture = protocol.fit(batch.input), batch.name[0]
            for sigma in SIGMAS:
                if process.asked_to_end():
                    raise Interrupted
                progress.begin()
                rng = np.random.default_rng((args.seed, zlib.crc32(name.encode()), zlib.crc32(picture.encode())))
                pixels = image.to_array(batch.input[0])
                x = protocol.fit(image.to_tensor(source.noisy(pixels, sigma, rng) if sigma else pixels)[None])
                output = restorer(x, may_tile=False, name=f"the clean image {picture} of {name}")
                rows.append((sigma, metric.compare(output, target.to(output.device), protocol)["psnr"], picture))
                progress.end()
    rows = process.gather(rows)
    return [_entry(sigma, [row[1:] for row in rows if row[0] == sigma]) for sigma in SIGMAS]


def _identity(content: source.Source) -> object:
    """Return a value that is equal for equal sources: several inputs may share one target."""
    return id(content) if isinstance(content, np.ndarray) else content


def _entry(sigma: int, measured: list[tuple[float, str]]) -> dict:
    worst, picture = min(measured)
    return {"sigma": sigma, "count": len(measured), "psnr": float(np.mean([psnr for psnr, _ in measured])), "worst": worst,
            "worst_image": picture}


def in_words(name: str, entries: list[dict]) -> list[str]:
    """Return the entries of `changes` of a set as lines for the log: the numbers, and a warning if the mean at sigma 0 is below LIMIT."""
    first = entries[0]
    numbers = "; ".join(f"sigma {each['sigma']} {each['psnr']:.2f} dB, worst {each['worst']:.2f} ({each['worst_image']})"
                        for each in entries)
    lines = [f"{name}: {first['count']} clean images restored, PSNR (RGB) {numbers}"]
    if first["psnr"] < LIMIT:
        lines.append(f"warning: {name}: the network changes clean images: restored, their mean PSNR is {first['psnr']:.2f} dB (RGB), "
                     f"below {LIMIT:.0f} dB; the worst is {first['worst_image']} with {first['worst']:.2f} dB")
    return lines
