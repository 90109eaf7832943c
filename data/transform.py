"""Random crop, flip and rotation, drawn once for all images of a sample."""
import numpy as np


def augment(images: dict[str, np.ndarray], patch_size: int, turns: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Cut the same (patch_size, patch_size, C) patch from every (H, W, C) image, and flip or rotate all patches in the same way.

    turns: "all" draws one of the 8 flips and rotations, "mirror" a left-right flip or none, "" changes nothing.
    Images smaller than the patch are padded by reflection. patch_size 0 keeps the whole image.
    """
    height, width = next(iter(images.values())).shape[:2]
    if patch_size:
        top, left = (int(rng.integers(max(side - patch_size, 0) + 1)) for side in (height, width))
        images = {key: _window(image, top, left, patch_size) for key, image in images.items()}
    if turns:
        flip_rows, flip_columns, transpose = rng.integers(2, size=3) * ((1, 1, 1) if turns == "all" else (0, 1, 0))
        for key, image in images.items():
            image = image[::-1] if flip_rows else image
            image = image[:, ::-1] if flip_columns else image
            images[key] = image.transpose(1, 0, 2) if transpose else image
    return images


def _window(image: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    cut = image[top:top + size, left:left + size]
    missing = [(0, size - side) for side in cut.shape[:2]]
    return np.pad(cut, (*missing, (0, 0)), mode="reflect") if any(m for _, m in missing) else cut
