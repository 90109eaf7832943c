"""A rainy image and the files made from it: map, references and result, in the paper's layout below a data set's folder."""
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from contract import Item
from data import image, source
from model.rain2avoid import guard, ldgp, nss
from runtime import files, process

MAP, REFERENCES, FUSED, RESULT = "ldgp", "sdr", "sdr(fuse)", "result"


class Picture:
    """One image, (H, W, 3) uint8, of a set whose output directory is `place`; methods make the map and the references."""

    def __init__(self, item: Item, place: Path, args: Namespace):
        self.name, self.item, self.place, self.args = item.name, item, place, args
        self.rgb = source.read(item.images["input"])
        self.target = source.read(item.images["image"]) if "image" in item.images else None

    def path(self, kind: str) -> Path:
        """Return the path of a kind of file (MAP, FUSED, RESULT) of this image."""
        return self.place / kind / f"{self.name}.png"

    def find_rain(self, anew: bool) -> None:
        """Set `prior`, (H, W) uint8, to an existing map of the right size, or compute it by LDGP and write it (always with `anew`)."""
        path = self.path(MAP)
        found = image.read(path)[..., 0] if path.is_file() else None
        if found is None or found.shape != self.rgb.shape[:2] or anew:
            self.prior = ldgp.prior(self.rgb, self.args.ldgp_patch, self.args.kernel_size, self.args.map_confidence)
            if found is None or not np.array_equal(found, self.prior):
                keep(path, self.prior)
        else:
            self.prior = found

    def draw(self) -> nss.Drawn:
        """Return the references by NSS; set their `spread`; set and write their mean `fused`, (H, W, 3) uint8.

        With --export_sdr write all references.
        """
        drawn = sample(self.rgb, self.prior, self.args)
        self.fused, self.spread = drawn.fused().cpu().numpy(), guard.spread(drawn)
        keep(self.path(FUSED), self.fused)
        if self.args.export_sdr:
            for number in range(len(drawn)):
                keep(self.place / REFERENCES / self.name / f"{number}.png", drawn.reference(number).cpu().numpy())
        return drawn

    def weigh(self) -> nss.Weighed:
        """Return the weights from which references are drawn during training."""
        args, device = self.args, process.device()
        return nss.weigh(torch.from_numpy(self.rgb).to(device), torch.from_numpy(self.prior).to(device), args.threshold, args.K, args.pow,
                         args.k)

    def why_not(self, positions: Tensor) -> str:
        """Return the reason why a network cannot be trained on this image, or ''."""
        if len(positions):
            return ""
        rainy = int((self.prior > self.args.threshold).sum())
        if not rainy:
            return "no rain was found in it"
        return f"its map marks almost all pixels as rain ({rainy / self.prior.size:.0%}), so there is no clean pixel to learn from"


def sample(rgb: np.ndarray, prior: np.ndarray, args) -> nss.Drawn:
    """Return the references of an image (H, W, 3) uint8 with the map (H, W) uint8, drawn with the settings of the flags."""
    device = process.device()
    return nss.draw(torch.from_numpy(rgb).to(device), torch.from_numpy(prior).to(device), args.sdr_num, args.threshold, args.K, args.pow,
                    args.nss_sampling, args.seed, args.k)


def keep(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W) or (H, W, 3) uint8 as a PNG file; an interrupted write leaves no partial file."""
    files.make_folder(path.parent)
    image.write(path, pixels)
