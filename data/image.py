"""Image files: the only code that knows levels 0-255 and (H, W, C)."""
import os
import warnings
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from utility import UserError, temporary

EXTENSIONS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
TURNED = {5, 6, 7, 8}                     # EXIF orientations that swap height and width
HINTS = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}      # where a PNG may say that it is turned
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
warnings.filterwarnings("ignore", module="PIL")            # of odd metadata, which is not used
Image.MAX_IMAGE_PIXELS = 1_000_000_000    # photos of any size, but no decompression bombs


def listing(folder: Path) -> list[Path]:
    """Return the image files directly in a folder, sorted by name; other files (Thumbs.db, notes) are left alone."""
    return sorted(path for path in folder.iterdir()
                  if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file())


def unreadable(path: Path, why: object) -> UserError:
    """Return the error for a file that is no whole image."""
    empty = path.exists() and path.stat().st_size == 0
    return UserError(f"cannot read the image {path}: {'the file is empty' if empty else why}; "
                     "replace it by a whole image or take it out of the folder")


def size(path: Path) -> tuple[int, int]:
    """Return (height, width) as `read` would give them, from the file's header alone; UserError if it is no image."""
    try:
        with Image.open(path) as image:
            # a PNG is decoded to be sure only where it hints at a turn; Pillow's versions differ in a turned TIFF's size
            hints = HINTS & image.info.keys() if image.format == "PNG" else image.getexif().get(0x0112) in TURNED
            if hints and image.format in ("PNG", "TIFF"):
                return ImageOps.exif_transpose(image).size[::-1]
            return image.size if hints else image.size[::-1]
    except UNREADABLE as error:
        raise unreadable(path, _reason(error)) from error


def read(path: Path) -> np.ndarray:
    """Read any image as RGB, (H, W, 3) uint8, turned upright by its EXIF tag; UserError if it is damaged.

    Grey is repeated and alpha dropped; 16-bit grey is rounded to 8 bits, 16-bit RGB cut to them (as Pillow reads it).
    """
    try:
        with Image.open(path) as image:
            image.load()
            image = ImageOps.exif_transpose(image)
    except UNREADABLE as error:
        raise unreadable(path, _reason(error)) from error
    if image.mode.startswith("I"):                       # 16-bit grey
        grey = np.clip(np.asarray(image, np.float64) / 257, 0, 255)
        return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise unreadable(path, "it holds floating-point levels without a known range")
    return np.array(image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB"))


def _reason(error: Exception) -> str:
    text = str(error).lower()
    if "truncat" in text:
        return "the file is truncated"
    return "the image is damaged or of an unknown format" if "cannot identify" in text else str(error)


def write(path: Path, image: np.ndarray) -> None:
    """Write an (H, W, 3) uint8 array as a lossless PNG; the file appears whole or not at all."""
    with temporary(path) as part, open(part, "wb") as file:
        imageio.imwrite(file, image, extension=".png")
        file.flush()
        os.fsync(file.fileno())


def to_tensor(image: np.ndarray) -> Tensor:
    """Turn (H, W, C) uint8 into (C, H, W) float32 in [0, 1]."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float().div_(255)


def to_array(image: Tensor) -> np.ndarray:
    """Turn (C, H, W) in [0, 1] into (H, W, C) uint8, clipped and rounded to the nearest level."""
    levels = image.detach().float().clamp(0, 1).mul(255).round().byte()
    return levels.permute(1, 2, 0).contiguous().cpu().numpy()
