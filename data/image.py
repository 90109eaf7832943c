"""Read and write image files, and convert between (H, W, C) uint8 arrays and (C, H, W) tensors in [0, 1]."""
import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from runtime import process
from runtime.errors import UserError, short
from runtime.files import natural, temporary
from runtime.log import Log

# what Pillow may decode (JPEG includes MPO); it would run Ghostscript for an EPS file, whatever its name
READABLE = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")
EXTENSIONS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
TURNED = {5, 6, 7, 8}                     # EXIF orientations that swap height and width
ORIENTATION_KEYS = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}       # fields of a PNG that can contain an orientation
CONVERTED = {".heic", ".heif", ".avif"}   # images that have to be converted first, and the brands in the headers of such files
BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
BITS = 258                                # TIFF tag: bits of each channel
ORIENTATION, EXIF_IFD, SIDES = 0x0112, 0x8769, (0xA002, 0xA003)         # EXIF tags; SIDES: width and height
# tags that describe the pixel storage of a TIFF; they must not be copied to another file
STRUCTURE = {254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 284, 292, 293, 297, 317, 318, 319, 320, 322, 323, 324, 325,
             330, 338, 339, 347, 512, 513, 514, 529, 530, 531, 532, 700, 34675}
# by extension: Pillow's name, largest number of pixels per side, options
FORMATS = {"png": ("PNG", 2**31 - 1, {}), "jpg": ("JPEG", 65_500, {"quality": 95}), "webp": ("WEBP", 16_383, {"quality": 95})}
LONGEST_NAME = 255                        # bytes, on usual file systems
MOST_EXIF = 65_527                        # largest EXIF block of a JPEG in bytes
BAND = 2**22                              # pixels that `to_array` converts at a time
warnings.filterwarnings("ignore", module="PIL")            # warnings about unusual metadata, which is not used
Image.MAX_IMAGE_PIXELS = 1_000_000_000    # permits large photos and rejects decompression bombs
_told: Log | None = None                  # the log that has the line of `tell_of_depth`


def listing(folder: Path) -> list[Path]:
    """Return the image files directly in a folder, in natural order of their names; other files (Thumbs.db, notes) are ignored."""
    return [folder / name for name in sorted(names_in(folder), key=natural)]


def names_in(folder: Path) -> Iterator[str]:
    """Yield the names of the image files directly in a folder, in any order."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if (os.path.splitext(entry.name)[1].lower() in EXTENSIONS and not entry.name.startswith(".")
                    and (os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file())):      # only a link needs to be followed
                yield entry.name


def unreadable(path: str | Path, why: object) -> UserError:
    """Return the UserError for a file that is not a complete image; `why` is the reason."""
    empty = Path(path).exists() and Path(path).stat().st_size == 0
    return UserError(f"cannot read the image {path}: {'the file is empty' if empty else why}; "
                     "replace the file or remove it from the folder")


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Yield the image of a file within the block, in which any error means that the file is damaged: Pillow raises many types of errors."""
    try:
        with Image.open(path, formats=READABLE) as image:
            yield image
    except UserError:
        raise
    except MemoryError as error:          # perhaps because a damaged header states many pixels
        raise unreadable(path, "the memory is too small to decode it") from error
    except Exception as error:
        raise unreadable(path, _reason(path, error)) from error


def size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) as `read` would return them, from the file's header only; UserError if the file is not an image."""
    height, width, deep = header(path)
    if deep:
        tell_of_depth(path)
    return height, width


def header(path: str | Path) -> tuple[int, int, bool]:
    """Return the height, the width and whether an image has 16 bits, from the file's header; UserError if the file is not an image."""
    with _opened(path) as image:
        deep = _has_16_bits(image)
        # a PNG is decoded only if it may contain an orientation; versions of Pillow differ in the size of a rotated TIFF
        rotated = ORIENTATION_KEYS & image.info.keys() if image.format == "PNG" else image.getexif().get(ORIENTATION) in TURNED
        if rotated and image.format in ("PNG", "TIFF"):
            width, height = ImageOps.exif_transpose(image).size
        else:
            width, height = image.size[::-1] if rotated else image.size
        return height, width, deep


def _has_16_bits(image: Image.Image) -> bool:
    modes = (tile[3] if isinstance(tile[3], str) else (tile[3] or [""])[0] for tile in image.tile)        # as stored: RGB;16B
    return any(";16" in str(mode) for mode in modes)


def tell_of_depth(path: str | Path) -> None:
    """Log that images of 16 bits are read with 8 bits, once for each log, that is for each run."""
    global _told
    if _told is not process.log():
        _told = process.log()
        _told.say(f"images of 16 bits are read with 8 bits, as {path}")


def pixels(path: str | Path) -> int:
    """Return the number of pixels that a file's header states, without decoding anything; UserError if the file is not an image."""
    with _opened(path) as image:
        return image.width * image.height


def read(path: str | Path) -> np.ndarray:
    """Read any image as RGB, (H, W, 3) uint8, rotated according to its EXIF orientation; UserError if it is damaged.

    Grey levels are repeated in all channels and alpha is dropped; grey of 12 or 16 bits is rounded to 8 bits, 16-bit RGB is
    truncated to 8 bits (by Pillow).
    """
    with _opened(path) as image:
        stored = max(image.tag_v2.get(BITS, (16,))) if image.format == "TIFF" else 16
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):                   # grey of more than 8 bits
            if stored > 16:
                raise unreadable(path, f"it contains whole numbers of {stored} bits, whose range is unknown")
            grey = np.clip(np.asarray(image, np.float64) * (255 / (2**stored - 1)), 0, 255)
            return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)
        if image.mode == "F":
            raise unreadable(path, "it contains floating-point values of an unknown range")
        return np.array(image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB"))


def _reason(path: str | Path, error: Exception) -> str:
    text = str(error).lower()
    if os.path.isdir(path):
        readable = os.access(path, os.R_OK | os.X_OK)
        return "it is a link to a folder that is read already" if readable else "this user may not read this folder"
    if os.path.islink(path) and not os.path.exists(path):
        return "it is a link that leads nowhere"
    if "truncat" in text:
        return "the file is truncated"
    if "cannot identify" in text:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            start = file.read(12)
            if start[4:8] == b"ftyp" and start[8:] in BRANDS:
                return "it is a HEIC or AVIF image, which is not read; convert it to PNG or JPEG"
        return "the image is damaged or of an unknown format"
    return short(error) or type(error).__name__


def write(path: str | Path, image: np.ndarray, extras: dict[str, bytes] | None = None) -> None:
    """Write an (H, W, 3) uint8 array in the format of the path's extension: .png (lossless), .jpg or .webp (quality 95).

    `extras` is metadata that the file will contain (see the function `extras`). The file is written atomically.
    Raises UserError for an unknown extension or an image that is too large for the format.
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
    """Return Pillow's name, the largest side and the options for a path's extension; UserError if the extension is unknown."""
    ending = path.suffix.lower().removeprefix(".").replace("jpeg", "jpg")
    if ending not in FORMATS:
        raise UserError(f"{path} cannot be written: its name must end in {', '.join(f'.{known}' for known in FORMATS)}")
    return FORMATS[ending]


def check_side(path: Path, side: int) -> None:
    """Raise UserError if the format of a path's extension does not permit a side of this many pixels, or if the name is too long."""
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise UserError(f"{path.name[:60]}… cannot be written: a file name has at most {LONGEST_NAME} bytes; rename the image")
    kind, most, _ = _format(path)
    if side > most:
        raise UserError(f"{path.name} cannot be written: a {kind} file has at most {most} pixels per side; use --format png")


def extras(path: Path) -> dict[str, bytes]:
    """Return the metadata that a restored image keeps from this file: `exif` with orientation 1, and `icc_profile` if it is for RGB."""
    found = {}
    try:
        with Image.open(path, formats=READABLE) as image:
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
    except Exception:                     # Pillow raises many types of errors for unusual metadata; the image is written without it
        return found
    return found


def to_tensor(image: np.ndarray) -> Tensor:
    """Convert (H, W, C) uint8, or float32 on the same scale, to (C, H, W) float32 in [0, 1]; float noise may exceed the range."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float().div_(255)


def to_array(image: Tensor) -> np.ndarray:
    """Convert (C, H, W) in [0, 1] to (H, W, C) uint8, clipped and rounded to the nearest level."""
    rows = max(BAND // image.shape[-1], 1)                # one band of rows at a time limits the memory for large images
    bands = [band.detach().float().clamp(0, 1).mul_(255).round_().byte().permute(1, 2, 0).contiguous().cpu()
             for band in image.split(rows, dim=-2)]
    return (bands[0] if len(bands) == 1 else torch.cat(bands)).numpy()
