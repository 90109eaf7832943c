"""Odd file names, damaged files beside the weights, and odd texts in flags: the work is done, or one sentence says what is wrong."""
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import option
import report
from data import image
from model import build, weights
from report import plots
from runtime import files
from runtime.errors import UserError
from tests.conftest import TINY, photo, save

FLAGS = ("--test_only", "--pre_train", "w.pt", "--data_test", "Demo", "--dir_demo", "photos", "--save_results", "--cpu", "--n_threads", "0")
BROKEN = os.fsdecode(b"caf\xe9")          # Latin-1, as old cameras and archives write it
AVIF = b"\0\0\0\x20ftypavif" + bytes(100)


@pytest.fixture
def photos(place) -> Path:
    """A folder with two photos, and the model file of a small untrained network."""
    args = option.parse(["--model", "dncnn", "--channels", "4"])
    torch.manual_seed(0)
    files.write_tensors(Path("w.pt"), weights.model_content(build(args), args, {}))
    for name in ("a", "b"):
        save(Path(f"photos/{name}.png"), photo(24, 32, ord(name)))
    return Path("photos")


def results() -> list[str]:
    return sorted(path.name for path in Path("experiment").glob("*/results-*/*"))


def test_a_heic_image_is_named_and_the_others_are_restored(run, photos):
    (photos / "c.png").write_bytes(AVIF)
    (photos / "d.heic").write_bytes(AVIF.replace(b"avif", b"heic"))
    status, text = run(*FLAGS)
    assert status == 2 and results() == ["a.png", "b.png"]
    assert "c.png: it is a HEIC or AVIF image, which is not read; convert it to PNG or JPEG" in text
    assert "photos: 1 HEIC or AVIF images are not read, as d.heic; convert them to PNG or JPEG" in text


def test_a_folder_of_heic_images_only(fails, photos):
    for path in photos.iterdir():
        path.rename(path.with_suffix(".heic"))
    assert "photos holds no image but HEIC or AVIF ones, which have to be converted" in fails(*FLAGS)


@pytest.mark.parametrize("error", [KeyError("x"), IndexError(), TypeError("x"), RuntimeError("x"), AttributeError("x"), MemoryError()])
def test_any_error_of_a_decoder_is_that_image_s(run, photos, monkeypatch, error):
    real = Image.open

    def damaged(path, **how):
        if Path(path).name == "a.png":
            raise error
        return real(path, **how)
    monkeypatch.setattr(Image, "open", damaged)
    status, text = run(*FLAGS)
    assert status == 2 and "cannot read the image photos/a.png" in text and results() == ["b.png"]


def test_file_names_that_are_not_utf8(run, photos):
    """The bytes of the name are kept; texts show them as \\udce9, as JSON does."""
    (photos / "a.png").rename(photos / f"{BROKEN}.png")
    save(photos / "target" / f"{BROKEN}.png", photo(24, 32, 1))
    save(photos / "target" / "b.png", photo(24, 32, 2))
    status, text = run(*FLAGS)
    assert status == 0, text
    assert f"{BROKEN}.png" in results() and "b.png" in results()
    cards, = (json.loads(path.read_text()) for path in Path("experiment/test").glob("cards-*.json"))
    assert BROKEN in [card["name"] for card in cards["cards"]]
    page = Path("experiment/test/report.html").read_text(encoding="utf-8")
    assert "caf\\udce9" in page and "caf%E9.png" in page
    shutil.rmtree(photos / "target")
    (photos / f"{BROKEN}2.png").write_bytes(b"x")
    status, text = run(*FLAGS, "--save", "other")
    assert status == 2 and "cannot read the image photos/caf\\udce92.png" in text


def rgb16(path: Path) -> Path:
    """Write a PNG of 16 bits per channel, which Pillow cannot write."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(bytes(8 * (1 + 8 * 6)))) + chunk(b"IEND", b""))
    return path


def test_that_16_bits_become_8_is_said_once(run, photos):
    assert "16 bits" not in run(*FLAGS)[1]
    Image.fromarray(np.zeros((24, 32), np.uint16)).save(photos / "c.png")
    rgb16(photos / "d.png")
    rgb16(photos / "e.png")
    for _ in range(2):
        assert run(*FLAGS, "--no-skip_done")[1].count("images of 16 bits are read with 8 bits, as photos/c.png") == 1


DAMAGES = [
    ("metrics.json", lambda value: {**value, "set": {**value["set"], "protocol": {"border": 3, "channels": 5}}}, "metrics.json, set"),
    ("metrics.json", lambda value: {**value, "set": {**value["set"], "interval95": [1]}}, "metrics.json, set"),
    ("metrics.json", lambda value: {**value, "more": {"others": 7}}, "metrics.json, more"),
    ("metrics.json", lambda value: {**value, "more": 7}, "metrics.json, more"),
    ("args.json", lambda value: {**value, "lr": 10**400}, ""),
    ("cards-set.json", lambda value: {**value, "protocol": {"name": 1, "version": [[]]}}, ""),
    ("cards-set.json", lambda value: {**value, "count": float("inf")}, "cards-set.json"),
    ("cards-set.json", lambda value: {**value, "cards": [{**card, "height": float("inf")} for card in value["cards"]]}, "cards-set.json"),
    ("cards-set.json", lambda value: {**value, "cards": [{**card, "views": 5} for card in value["cards"]]}, "cards-set.json"),
    ("cards-set.json", lambda value: {**value, "cards": [{**card, "numbers": {"psnr": 10**400}} for card in value["cards"]]}, "cards-set"),
]


@pytest.mark.parametrize("name, change, words", DAMAGES, ids=range(len(DAMAGES)))
def test_a_damaged_file_is_left_out_of_the_page(trained, capsys, name, change, words):
    path = trained / name
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    page = report.write(trained).read_text(encoding="utf-8")
    said = capsys.readouterr().out
    assert len(said.splitlines()) == bool(words) and words in said
    assert not words or f"{words}" in page


@pytest.mark.parametrize("name", ["metrics.json", "args.json", "cards-set.json", "log.jsonl"])
@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe", b'{"a": ' + b"9" * 5000 + b"}", b"7"], ids=range(4))
def test_a_file_that_is_no_json(run, trained_here, name, content):
    """A training that goes on, and its page and curves, need none of these files, except the flags."""
    (trained_here / name).write_bytes(content)
    report.write(trained_here)
    plots.curves(trained_here)
    status, text = run("--load", "x", "--epochs", "2")
    assert status == (2 if name == "args.json" else 0), text


@pytest.mark.parametrize("line", [
    {"event": "epoch", "epoch": 1, "losses": [1]}, {"event": "test", "epoch": 1, "psnr": 30}, {"event": "test", "data_set": [1]},
    {"event": "epoch", "epoch": [1], "losses": {}}, {"event": "epoch", "epoch": 10**400, "losses": {"a": 1}}, {"losses": 3}, [1], 7, None,
    {"event": "epoch", "epoch": 2, "losses": {"loss": 1e308}}, {"event": "epoch", "epoch": 2, "losses": {"loss": -1e308, "x": 10**400}}])
def test_a_damaged_line_of_the_log(trained, capsys, line):
    with open(trained / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    assert "Test PSNR" in report.write(trained).read_text(encoding="utf-8")
    plots.curves(trained)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("flags, words", [
    (["--lr", "1" * 5000], "… (5000 characters)' is not a number from 0 upwards"),
    (["--seed", "1" * 5000], "… (5000 characters)' is not a whole number from 0"),
    (["--epochs", "9" * 400], "is not a whole number from 1"),
    (["--batch_size", "1" * 5000], "… (5000 characters)' is not a whole number from 1"),
    (["--decay", "1" * 5000], "… (5000 characters)' is not a whole number from 1"),
    (["--data_range", "1-" + "1" * 5000], "(5002 characters)' is not first-last"),
    (["--sigma", "0-" + "1" * 5000], "(5002 characters)' is not two noise levels"),
    (["--data_test", "set@" + "1" * 5000], "(5004 characters)': after the @ stands"),
    (["--loss=--"], "--loss=--: '--' is not a value of this flag"),
    (["--loss", "1*SSIM(window=" + "9" * 400 + ")"], "must be a whole number"),
    (["--loss", "+".join(["1e"] * 50_000)], "--loss has 149999 characters; at most 10000 are read"),
    (["--save", "a\0b"], "contains a NUL character"),
    (["--pre_train", "a\0b"], "contains a NUL character"),
    (["--config", "deep.json"], "cannot read the flags in deep.json"),
    (["--config", "nul.json"], "the flag 'save' cannot be"),
    (["--config", "digits.json"], "cannot read the flags in digits.json"),
    (["--config", "long.json"], "(100000 characters)"),
    (["--data_train", "wide.csv"], "wide.csv is not a list of lines clean,degraded: field larger than field limit"),
    (["--data_train", "nul.csv"], "the list nul.csv contains a NUL character"),
    (["--data_train", "nul_pairs.json"], "the list nul_pairs.json contains a NUL character"),
    (["--data_train", "deep.json"], "deep.json is not valid JSON"),
    (["--data_train", "line.csv"], "(100000 characters)' is not of the form clean,degraded"),
])
def test_odd_texts(fails, pairs, flags, words):
    Path("deep.json").write_text("[" * 100_000)
    Path("nul.json").write_text('{"save": "a\\u0000b"}')
    Path("digits.json").write_text('{"lr": ' + "1" * 5000 + "}")
    Path("long.json").write_text(json.dumps({"lr": "x" * 100_000}))
    Path("wide.csv").write_text(f"{'x' * 200_000},b\n")
    Path("nul.csv").write_bytes(b"a\0,b\n")
    Path("nul_pairs.json").write_text('[["a\\u0000", "b"]]')
    Path("line.csv").write_text("x" * 100_000)
    sentence = fails("--data_train", "set", *TINY, *flags)
    assert words in sentence and len(sentence) < 2100
    assert not Path("experiment").exists()


def test_a_text_that_stdout_cannot_show(run, pairs):
    """A broken name in a flag is printed with its bytes instead of ending in an error."""
    assert f"--save {BROKEN}".replace("\udce9", "\\udce9") in run("--data_train", "set", "--save", BROKEN, "--explain")[1].replace("'", "")


def test_a_header_of_another_kind(place):
    Path("x.png").write_bytes(b"\0\0\0\x20ftypxxxx")
    with pytest.raises(UserError, match=r"x\.png: the image is damaged or of an unknown format"):
        image.size("x.png")
