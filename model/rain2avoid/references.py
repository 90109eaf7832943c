"""Training samples of Rain2Avoid: crops of rainy images; the target is the mean of some derained references."""
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from contract import Sample
from data.transform import augment
from model.rain2avoid.nss import Drawn, Weighed


class References(Dataset):
    """Crops of images; each side is `patch_size` or the image's, if that is smaller, rounded down to a multiple of `multiple`.

    With one image the index selects the `together` references whose mean is the target, so that an epoch uses each reference
    once. With several images the index selects the image, and the references are drawn at random.
    """

    def __init__(self, pictures: list, sources: list[Drawn | Weighed], together: int, seed: int, patch_size: int, multiple: int,
                 turns: str):
        self.pictures, self.sources, self.together, self.seed = pictures, sources, together, seed
        self.patch_size, self.multiple, self.turns = patch_size, multiple, turns
        self.places = [_places(picture.rgb, source.positions) for picture, source in zip(pictures, sources)]
        self.whole: dict[tuple, np.ndarray] = {}                  # cache: the mean of all references of an image, needed at every step

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int, int]) -> Sample:
        """Return the sample for the key (epoch, position, index) that the sampler draws."""
        epoch, position, index = key
        number, rng = (index if len(self.pictures) > 1 else 0), np.random.default_rng((self.seed, epoch, position))
        picture = self.pictures[number]
        box = self._box(picture.rgb, rng)
        target = self._target(number, key, box, rng)
        images = augment({"input": self._filled(picture.rgb[box]), "image": self._filled(target)}, 0, self.turns, rng)
        rainy, target = (torch.from_numpy(np.ascontiguousarray(each.transpose(2, 0, 1))).float().div_(255) for each in images.values())
        return Sample(picture.name, rainy, {"image": target}, number)

    def _box(self, rgb: np.ndarray, rng: np.random.Generator) -> tuple[slice, slice]:
        """Return rows and columns of a random crop; a side shorter than `multiple` is not cropped."""
        sides = [min(side, self.patch_size) // self.multiple * self.multiple or side for side in rgb.shape[:2]]
        starts = [int(rng.integers(length - side + 1)) for length, side in zip(rgb.shape, sides)]
        return tuple(slice(start, start + side) for start, side in zip(starts, sides))

    def overview(self, most: int = 16) -> Tensor:
        """Return crops of the first image as one batch (B, 3, h, w): a grid over the image, or `most` random ones of a large image."""
        rgb, rng = self.pictures[0].rgb, np.random.default_rng(self.seed)
        sides = [min(side, self.patch_size) // self.multiple * self.multiple or side for side in rgb.shape[:2]]
        counts = [-(-length // side) for length, side in zip(rgb.shape, sides)]
        rows, columns = ([round(number * (length - side) / max(count - 1, 1)) for number in range(count)]
                         for length, side, count in zip(rgb.shape, sides, counts))
        boxes = [(row, column) for row in rows for column in columns]
        if len(boxes) > most:
            boxes = [boxes[number] for number in sorted(rng.choice(len(boxes), most, replace=False))]
        crops = [self._filled(rgb[row:row + sides[0], column:column + sides[1]]) for row, column in boxes]
        return torch.from_numpy(np.stack(crops)).movedim(-1, 1).float().div_(255)

    def _filled(self, pixels: np.ndarray) -> np.ndarray:
        """Return (H, W, 3) padded by reflection to multiples of `multiple`; only images smaller than that need it."""
        missing = [(0, -side % self.multiple) for side in pixels.shape[:2]]
        return np.pad(pixels, (*missing, (0, 0)), mode="symmetric") if any(missing[0] + missing[1]) else pixels

    def _target(self, number: int, key: tuple[int, int, int], box: tuple[slice, slice], rng: np.random.Generator) -> np.ndarray:
        """Return the mean of the selected references in a crop, (h, w, 3) float32 in levels 0-255."""
        source, places = self.sources[number], self.places[number][box]
        rainy = places >= 0
        some = torch.from_numpy(places[rainy]).to(source.positions.device)
        if isinstance(source, Weighed):
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            colours = source.colours(self.together, some, generator)
        elif self.together >= len(source):
            if number not in self.whole:
                everywhere = torch.arange(len(source.positions), device=some.device)
                self.whole[number] = source.colours(torch.arange(len(source)), everywhere)
            colours = self.whole[number][some]
        else:
            colours = source.colours(self._numbers(len(source), key, rng), some)
        target = self.pictures[number].rgb[box].astype(np.float32)
        target[rainy] = colours.cpu().numpy()
        return target

    def _numbers(self, count: int, key: tuple[int, int, int], rng: np.random.Generator) -> Tensor:
        """Return the numbers of the references, of `count`, whose mean is the target."""
        epoch, _, index = key
        if len(self.pictures) > 1:
            return torch.from_numpy(rng.choice(count, self.together, replace=False))
        order = np.random.default_rng((self.seed, epoch)).permutation(count)
        return torch.from_numpy(order[index * self.together:(index + 1) * self.together])


def _places(rgb: np.ndarray, positions: Tensor) -> np.ndarray:
    """Return for every pixel, (H, W), its index in `positions`, or -1 if it is not in them."""
    places = np.full(rgb.shape[:2], -1, np.int64)
    places.flat[positions.cpu().numpy()] = np.arange(len(positions))
    return places
