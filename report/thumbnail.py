"""Thumbnails of test images, collected in an Album for each test set, which is written to cards-<set>.json."""
import base64
import io
import json
import math
import os
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from data.image import to_array
from runtime import files, process
from runtime.files import natural

FORMAT = "unweather cards 1"
LIMIT = 400                               # greatest number of cards of a set and of a page
LARGE, SMALL = (320, 10_400), (224, 4_800)             # longer side in pixels and size in bytes of a JPEG; SMALL above 100 images
ERROR_SHARE = 0.4                         # share of those bytes for the error map, which has 0.6 of the side
FULL_ERROR = 40 / 255                     # mean absolute error that has the brightest colour in the error map
LADDER = ((1, 84), (1, 76), (1, 66), (1, 54), (1, 40), (0.75, 40), (0.5, 40), (0.35, 30))     # (scale, JPEG quality), best first
COLOURS = ((0, 0, 0), (61, 17, 94), (176, 42, 79), (240, 124, 44), (255, 246, 205))           # of the error map, from no error up


class Album:
    """Collects the cards of one test set (thumbnails and the numbers of the first protocol), limited in number and in bytes.

    count: the number of images of the set over all processes; ending, results: the format of the saved results and their folder,
    if it is not results-<name>. An album stays empty without --report and if the test is not `final`.
    """

    def __init__(self, name: str, count: int, args, final: bool = True, ending: str = "png", results: Path | None = None):
        self.name, self.count, self.wanted, self.ending, self.results = name, count, final and args.report, ending, results
        self.saved = [kind for kind, wanted in (("results", args.save_results), ("compare", args.save_gt)) if wanted]
        self.side, self.budget = LARGE if count <= 100 else SMALL
        self.step = math.ceil(count / process.world() / (LIMIT // 2))      # an evenly spaced sample takes one of `step` images
        self.seen, self.cards = 0, []

    def passes(self) -> bool:
        """Return True to skip the next image, which has no target; a skipped image is counted."""
        left_out = not self.wanted or (self.count > LIMIT and self.seen % self.step > 0)
        self.seen += left_out
        return left_out

    def add(self, name: str, x: Tensor, output: Tensor, target: Tensor | None, numbers: dict[str, float],
            before: Path | None = None) -> None:
        """Add the card of one image, given as (1, 3, H, W) in [0, 1]; without a target it has no error map and no numbers.

        before: a file with the input in full size.
        """
        if not self.wanted:
            return
        views = {"input": x, "result": output} | ({} if target is None else {"truth": target})
        views = {key: jpeg(to_array(reduced(value, self.side)[0]), self.budget) for key, value in views.items()}
        if target is not None:
            views["error"] = jpeg(error_map(output, target, round(0.6 * self.side)), round(ERROR_SHARE * self.budget), subsampling=0)
        height, width = x.shape[-2:]
        self.cards.append({"name": name, "height": height, "width": width, "even": self.seen % self.step == 0,
                           "numbers": {key: value for key, value in numbers.items() if math.isfinite(value)},
                           "views": {key: base64.b64encode(value).decode() for key, value in views.items()},
                           "before": str(before.resolve()) if before else ""})
        self.seen += 1
        if len(self.cards) > 2 * LIMIT:
            self.cards = extremes(self.cards, LIMIT // 4) + [card for card in self.cards if card["even"]]
            self.cards = list({card["name"]: card for card in self.cards}.values())

    def write(self, folder: Path, protocol: dict) -> None:
        """Gather the cards of all processes and write cards-<set>.json, or delete an old file if this album collects nothing."""
        cards = process.gather(self.cards)
        if process.rank() > 0:
            return
        path = folder / f"cards-{self.name}.json"
        if not self.wanted:
            path.unlink(missing_ok=True)
            return
        cards = [{key: value for key, value in card.items() if key != "even"}
                 | {"before": relative(Path(card["before"]), folder) if card["before"] else ""} for card in sample(cards, LIMIT)]
        results = relative(self.results, folder) if self.results else f"results-{self.name}"
        content = {"format": FORMAT, "data_set": self.name, "count": self.count, "protocol": protocol, "saved": self.saved,
                   "ending": self.ending, "results": results, "cards": cards}
        files.write_text(path, json.dumps(content, ensure_ascii=False) + "\n")


def relative(path: Path, folder: Path) -> str:
    """Return a path relative to a folder, with slashes, so that both can be moved together."""
    return os.path.relpath(path.resolve(), folder.resolve()).replace(os.sep, "/")


def extremes(cards: list[dict], count: int) -> list[dict]:
    """Return the `count` cards with the lowest and with the highest PSNR; cards without a PSNR are left out."""
    ranked = sorted((card for card in cards if "psnr" in card["numbers"]),
                    key=lambda card: (card["numbers"]["psnr"], natural(card["name"])))
    return ranked if len(ranked) <= 2 * count else ranked[:count] + ranked[len(ranked) - count:]


def sample(cards: list[dict], limit: int) -> list[dict]:
    """Return at most `limit` cards sorted by name: all, or a quarter with lowest PSNR, a quarter with highest, others evenly spaced."""
    cards = sorted(cards, key=lambda card: natural(card["name"]))
    if len(cards) <= limit:
        return cards
    kept = extremes(cards, limit // 4)
    names = {card["name"] for card in kept}
    rest = [card for card in cards if card["name"] not in names]
    room = limit - len(kept)
    kept += [rest[number * len(rest) // room] for number in range(room)]
    return sorted(kept, key=lambda card: natural(card["name"]))


def reduced(x: Tensor, side: int) -> Tensor:
    """Return (1, 3, H, W) reduced to a longer side of at most `side` pixels; a small image keeps its size."""
    height, width = x.shape[-2:]
    factor = min(1, side / max(height, width))
    size = max(round(factor * height), 1), max(round(factor * width), 1)
    return x.float() if size == (height, width) else F.interpolate(x.float(), size, mode="bilinear", antialias=True)


def error_map(output: Tensor, target: Tensor, side: int) -> np.ndarray:
    """Return the mean absolute error over the channels of (1, 3, H, W) as colours, (h, w, 3) uint8, from black (0) to FULL_ERROR."""
    error = (output.clamp(0, 1) - target).abs()
    levels = reduced(error, side)[0].mean(0).div(FULL_ERROR).clamp(0, 1).cpu().numpy()
    stops = np.linspace(0, 1, len(COLOURS))
    table = np.stack([np.interp(np.linspace(0, 1, 256), stops, channel) for channel in zip(*COLOURS)], axis=-1).round().astype(np.uint8)
    return table[(255 * levels).round().astype(np.uint8)]


def jpeg(picture: np.ndarray, budget: int, subsampling: int = 2) -> bytes:
    """Return (h, w, 3) uint8 as JPEG with the best entry of LADDER that needs at most `budget` bytes, else with the last entry.

    subsampling: 2 stores a quarter of the colour values (4:2:0), 0 stores all of them (4:4:4).
    """
    low, high, best = 0, len(LADDER) - 1, b""
    while low < high:
        middle = (low + high) // 2
        data = _encoded(picture, *LADDER[middle], subsampling)
        if len(data) <= budget:
            high, best = middle, data
        else:
            low = middle + 1
    return best or _encoded(picture, *LADDER[-1], subsampling)


def _encoded(picture: np.ndarray, scale: float, quality: int, subsampling: int) -> bytes:
    image, buffer = Image.fromarray(picture), io.BytesIO()
    if scale < 1:
        image = image.resize([max(round(scale * length), 1) for length in image.size], Image.BOX)
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()
