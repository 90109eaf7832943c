"""Image files: the only code that knows levels 0-255 and (H, W, C)."""
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from runtime.errors import UserError
from runtime.files import temporary
from utility import natural

EXTENSIONS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
TURNED = {5, 6, 7, 8}                     # EXIF orientations that swap height and width
HINTS = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}      # where a PNG may say that it is turned
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
ORIENTATION, EXIF_IFD, SIDES = 0x0112, 0x8769, (0xA002, 0xA003)         # EXIF's tags; SIDES: width and height
# tags of a TIFF's pixels, which mean nothing in another file
STRUCTURE = {254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 284, 292, 293, 297, 317, 318, 319, 320, 322, 323, 324, 325,
             330, 338, 339, 347, 512, 513, 514, 529, 530, 531, 532, 700, 34675}
# by ending: Pillow's name, pixels a side at most, options
FORMATS = {"png": ("PNG", 2**31 - 1, {}), "jpg": ("JPEG", 65_500, {"quality": 95}), "webp": ("WEBP", 16_383, {"quality": 95})}
MOST_EXIF = 65_527                        # bytes that fit into a JPEG
BAND = 2**22                              # pixels that `to_array` turns at a time
warnings.filterwarnings("ignore", module="PIL")            # of odd metadata, which is not used
Image.MAX_IMAGE_PIXELS = 1_000_000_000    # photos of any size, but no decompression bombs


def listing(folder: Path) -> list[Path]:
    """Return the image files directly in a folder in natural order of their names; other files (Thumbs.db, notes) are left out."""
    return sorted((path for path in folder.iterdir()
                   if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()),
                  key=natural)


def unreadable(path: str | Path, why: object) -> UserError:
    """Return the error for a file that is no whole image."""
    empty = Path(path).exists() and Path(path).stat().st_size == 0
    return UserError(f"cannot read the image {path}: {'the file is empty' if empty else why}; "
                     "replace it by a whole image or take it out of the folder")


def size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) as `read` would give them, from the file's header alone; UserError if it is no image."""
    try:
        with Image.open(path) as image:
            # a PNG is decoded to be sure only where it hints at a turn; Pillow's versions differ in a turned TIFF's size
            hints = HINTS & image.info.keys() if image.format == "PNG" else image.getexif().get(ORIENTATION) in TURNED
            if hints and image.format in ("PNG", "TIFF"):
                return ImageOps.exif_transpose(image).size[::-1]
            return image.size if hints else image.size[::-1]
    except UNREADABLE as error:
        raise unreadable(path, _reason(error)) from error


def read(path: str | Path) -> np.ndarray:
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


def write(path: str | Path, image: np.ndarray, extras: dict[str, bytes] | None = None) -> None:
    """Write an (H, W, 3) uint8 array in the format of the path's ending: .png (lossless), .jpg or .webp (quality 95).

    `extras` are put into the file (see `extras`). It appears whole or not at all; UserError for what the format cannot hold.
    """
    path = Path(path)
    check_side(path, max(image.shape[:2]))
    kind, _, options = _format(path)
    options = options | (extras or {})
    if kind == "JPEG" and len(options.get("exif", b"")) > MOST_EXIF:
        del options["exif"]
    with temporary(path) as part, open(part, "wb") as file:
        Image.fromarray(image).save(file, kind, **options)
        file.flush()
        os.fsync(file.fileno())


def _format(path: Path) -> tuple[str, int, dict]:
    """Return Pillow's name, the largest side and the options of a path's ending; UserError for an ending without a format."""
    ending = path.suffix.lower().removeprefix(".").replace("jpeg", "jpg")
    if ending not in FORMATS:
        raise UserError(f"{path} cannot be written: its name has to end in {', '.join(f'.{known}' for known in FORMATS)}")
    return FORMATS[ending]


def check_side(path: Path, side: int) -> None:
    """Raise UserError where the format of a path's ending cannot hold a picture of so long a side."""
    kind, most, _ = _format(path)
    if side > most:
        raise UserError(f"{path.name} cannot be written: a {kind} has at most {most} pixels a side; --format png takes any")


def extras(path: Path) -> dict[str, bytes]:
    """Return what a picture restored from this file keeps: `exif`, its orientation 1, and `icc_profile`, if it is one for RGB."""
    found = {}
    try:
        with Image.open(path) as image:
            profile, exif = image.info.get("icc_profile") or b"", image.getexif()
            if profile[16:20] == b"RGB ":
                found["icc_profile"] = profile
            for tag in STRUCTURE & exif.keys():
                del exif[tag]
            if ORIENTATION in exif:
                inner = exif.get_ifd(EXIF_IFD) if EXIF_IFD in exif else {}
                if exif[ORIENTATION] in TURNED and set(SIDES) <= inner.keys():
                    inner.update({SIDES[0]: inner[SIDES[1]], SIDES[1]: inner[SIDES[0]]})
                exif[ORIENTATION] = 1
            if exif:
                found["exif"] = exif.tobytes()
    except Exception:                     # Pillow raises almost anything for odd metadata, and no picture is lost for that
        return found
    return found


def to_tensor(image: np.ndarray) -> Tensor:
    """Turn (H, W, C) uint8 into (C, H, W) float32 in [0, 1]."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float().div_(255)


def to_array(image: Tensor) -> np.ndarray:
    """Turn (C, H, W) in [0, 1] into (H, W, C) uint8, clipped and rounded to the nearest level."""
    rows = max(BAND // image.shape[-1], 1)                # a band at a time: the copies of a large picture stay small
    bands = [band.detach().float().clamp(0, 1).mul_(255).round_().byte().permute(1, 2, 0).contiguous().cpu()
             for band in image.split(rows, dim=-2)]
    return (bands[0] if len(bands) == 1 else torch.cat(bands)).numpy()
