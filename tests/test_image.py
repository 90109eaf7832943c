"""Image files of all kinds are read as upright 8-bit RGB, or give one clear error message."""
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import image
from runtime.errors import UserError
from tests.conftest import photo, save

RGB = photo(12, 20, 0)
GREY = RGB[..., 0]


@pytest.mark.parametrize("name, picture, expected", [
    ("grey.png", Image.fromarray(GREY), np.stack([GREY] * 3, -1)),
    ("alpha.png", Image.fromarray(np.dstack([RGB, GREY])), RGB),
    ("grey_alpha.png", Image.fromarray(np.dstack([GREY, GREY]), "LA"), np.stack([GREY] * 3, -1)),
    ("deep.png", Image.fromarray(GREY.astype(np.uint16) * 257), np.stack([GREY] * 3, -1)),
    ("deep.tif", Image.fromarray(GREY.astype(np.uint16) * 257), np.stack([GREY] * 3, -1)),
    ("plain.bmp", Image.fromarray(RGB), RGB),
    ("black_white.png", Image.fromarray(GREY > 100), np.stack([(GREY > 100) * np.uint8(255)] * 3, -1)),
])
def test_kinds(tmp_path, name, picture, expected):
    picture.save(tmp_path / name)
    assert np.array_equal(image.read(tmp_path / name), expected)
    assert image.size(tmp_path / name) == (12, 20)


def grey_tiff(path: Path, bits: int, content: bytes) -> Path:
    """Write an uncompressed grey TIFF of 12 x 20 pixels with whole numbers of so many bits."""
    tags = [(256, 20), (257, 12), (258, bits), (259, 1), (262, 1), (273, 122), (277, 1), (278, 12), (279, len(content))]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    path.write_bytes(struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + content)
    return path


def test_the_depth_of_grey(tmp_path):
    """White of 12 bits is 4095; the range of 32 bits is not known."""
    levels = (GREY.astype(np.uint32) * 4095 + 127) // 255
    pairs = levels.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1).astype(np.uint8).tobytes()
    assert np.array_equal(image.read(grey_tiff(tmp_path / "twelve.tif", 12, packed)), np.stack([GREY] * 3, -1))
    with pytest.raises(UserError, match="it contains whole numbers of 32 bits, whose range is unknown"):
        image.read(grey_tiff(tmp_path / "long.tif", 32, GREY.astype("<u4").tobytes()))


def test_palette(tmp_path):
    picture = Image.fromarray(RGB).quantize(16)
    picture.save(tmp_path / "palette.png", transparency=0)
    assert np.array_equal(image.read(tmp_path / "palette.png"), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{ending}"
    Image.fromarray(RGB).save(path, exif=exif)
    turned = image.read(path)
    assert turned.shape == ((20, 12, 3) if orientation > 4 else (12, 20, 3))
    assert image.size(path) == turned.shape[:2]


@pytest.mark.parametrize("content, words", [
    (b"", "the file is empty"), (b"not an image at all", "damaged or of an unknown format")])
def test_no_image(tmp_path, content, words):
    (tmp_path / "x.png").write_bytes(content)
    for function in (image.read, image.size):
        with pytest.raises(UserError, match=f"cannot read the image .*x.png: .*{words}"):
            function(tmp_path / "x.png")


def test_truncated(tmp_path):
    path = save(tmp_path / "cut.jpg", photo(100, 100, 1))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(UserError, match=r"cut\.jpg: the file is truncated"):
        image.read(path)


def test_round_trip(tmp_path):
    image.write(tmp_path / "out.png", RGB)
    assert np.array_equal(image.read(tmp_path / "out.png"), RGB)
    assert np.array_equal(image.to_array(image.to_tensor(RGB)), RGB)
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


@pytest.mark.parametrize("use", [image.size, image.read])
def test_postscript_is_never_opened(place, use):
    """Pillow would recognise an EPS by its content, whatever its name, and run Ghostscript on it."""
    Path("x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(UserError, match="the image is damaged or of an unknown format"):
        use("x.png")
