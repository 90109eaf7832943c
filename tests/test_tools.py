"""Tests of tool.measure, tool.compare and tool.verify."""
import json
from pathlib import Path

import numpy as np
import pytest

from data import image
from tests.conftest import TINY, make_pairs, photo, save, veiled
from tool import compare, guarded, measure, verify


@pytest.fixture
def tool(place, capsys):
    """Run a tool: tool(module, '--flag', …) -> (status, what it printed)."""
    def call(module, *flags: str) -> tuple[int, str]:
        status = guarded("tool", lambda: module.run([str(flag) for flag in flags]))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out + err
    return call


def test_measure(tool, place):
    """Folders of images, also rain-N against norain-N, are measured; numbers and settings are printed and written as JSON and CSV."""
    for number in range(3):
        save(place / "out" / f"rain-{number}.png", veiled(photo(40, 50, number)))
        save(place / "truth" / f"norain-{number}.jpg", photo(40, 50, number), quality=95)
    status, text = tool(measure, "--input", "out", "--target", "truth", "--protocol", "default+y_truncated", "--task", "rain",
                        "--json", "m.json", "--csv", "m.csv", "--cpu")
    assert status == 0, text
    results = json.loads(Path("m.json").read_text())["results"]
    files = [(Path(f"out/rain-{n}.png"), Path(f"truth/norain-{n}.jpg")) for n in range(3)]
    errors = [np.mean((image.read(one) / 255 - image.read(other) / 255) ** 2) for one, other in files]
    assert results[0]["psnr"] == pytest.approx(np.mean(-10 * np.log10(errors)))
    assert results[0]["count"] == 3 and results[1]["protocol"]["rounding"] == "truncate"
    assert results[0]["interval95"]["psnr"][0] <= results[0]["psnr"] <= results[0]["interval95"]["psnr"][1]
    assert f"PSNR {results[0]['psnr']:.2f} dB" in text and "protocol y_truncated v1: Y (8 bits), truncated to 8 bits" in text
    assert len(Path("m.csv").read_text().splitlines()) == 1 + 6


@pytest.mark.parametrize("flags, words", [
    (("--target", "none"), "none is not a folder with images"),
    (("--protocol", "mine"), "unknown protocol 'mine'; known: default, smgarn"),
    (("--target", "small"), "differ in size: out/a.png (50x40) and small/a.png (20x20)"),
    (("--target", "other"), "1 of 1 images in out have no partner in other: a.png"),
    (("--metrics", "ms_ssim"), "MS-SSIM needs images of at least 176x176"),
    (("--input",), "expected one argument"),
])
def test_measure_says_what_is_wrong(tool, place, flags, words):
    for folder, name, size in (("out", "a", (40, 50)), ("truth", "a", (40, 50)), ("small", "a", (20, 20)), ("other", "b", (40, 50))):
        save(place / folder / f"{name}.png", photo(*size, 1))
    status, text = tool(measure, "--input", "out", "--target", "truth", *flags)
    assert status == 2 and words in text


def test_measure_by_pyiqa_needs_the_package(tool, place):
    save(place / "out" / "a.png", photo(40, 50, 1))
    try:
        import pyiqa  # noqa: F401
        pytest.skip("pyiqa is installed")
    except ImportError:
        status, text = tool(measure, "--input", "out", "--target", "out", "--metrics", "lpips")
        assert status == 2 and "the measure 'lpips' comes from the package pyiqa: pip install pyiqa" in text


def test_rain100l_by_one_command(tool, real_data):
    status, text = tool(measure, "--input", real_data / "Rain100L" / "input", "--target", real_data / "Rain100L" / "target",
                        "--protocol", "default+dsrir", "--task", "rain")
    assert status == 0
    assert "50 images: PSNR 25.18 dB" in text and "26.55 dB, 0.8283 (Y)" in text
    assert "PSNR 26.55 dB (25.41 to 27.73), SSIM 0.8164 (Y)" in text


def test_compare(tool, run, place):
    make_pairs(place / "dataset" / "set", 8)
    for save_name, seed in (("a", "1"), ("b", "2")):
        assert run("--data_train", "set", "--data_range", "1-3", "--loss", "1*L1", "--save", save_name, "--seed", seed, *TINY)[0] == 0
    status, text = tool(compare, "a", "b")
    assert status == 0, text
    a, b = ([float(line.split(",")[2]) for line in Path(f"experiment/{n}/metrics-set.csv").read_text().splitlines()[1:]] for n in "ab")
    assert f"{np.mean(b) - np.mean(a):+12.4f}" in text and f"{np.mean(np.array(b) > np.array(a)):10.0%}" in text
    assert image.size(Path("experiment/compare/psnr.png")) == (600, 600)


@pytest.mark.parametrize("flags, words", [
    (("a",), "name at least two different runs"), (("a", "none"), "there is no experiment experiment/none"),
    (("a", "bad.csv"), "cannot read the table bad.csv"),
    (("a", "a.csv", "--protocol", "smgarn"), "has no numbers for the protocol smgarn"),
    (("a", "a.csv", "--measure", "lpips"), "does not have 'lpips' for every image; it has: psnr"),
    (("a", "a.csv", "--data_test", "x"), "has no numbers for the data set 'x'"), (("a", "b.csv"), "no image in common")])
def test_compare_says_what_is_wrong(tool, place, flags, words):
    Path("experiment/a").mkdir(parents=True)
    for path in ("experiment/a/metrics-set.csv", "a.csv"):
        Path(path).write_text("image,protocol,psnr\n1,default,30.0\n")
    Path("b.csv").write_text("image,protocol,psnr\n2,default,30.0\n")
    Path("bad.csv").write_text("\x00nonsense")
    status, text = tool(compare, *flags)
    assert status == 2 and words in text


def test_verify(tool, place):
    """A complete set is fine and its manifest is written; then damage of each kind is named, and the exit status is 1."""
    root = make_pairs(place / "dataset" / "Rain12", 12)
    make_pairs(place / "dataset" / "mine", 2)
    (place / "dataset" / "other").mkdir()
    status, text = tool(verify, "--dir_data", "dataset")
    assert status == 0, text
    assert "Rain12          test          12         12   fine" in text and "no data set of a known layout" in text
    assert "CBSD68" in text[text.index("missing; put"):]
    assert len(json.loads(Path("dataset/manifest/Rain12.json").read_text())) == 24

    save(root / "target" / "03.png", photo(40, 48, 77))
    status, text = tool(verify, "Rain12", "--dir_data", "dataset")
    assert status == 1 and "target/03.png is changed since the manifest was written" in text
    (root / "input" / "04.png").write_bytes(b"")
    save(root / "target" / "05.png", photo(40, 40, 5))
    save(root / "target" / "06.png", image.read(root / "input" / "06.png"))
    save(root / "input" / "07.png", 255 - np.asarray(photo(40, 48, 7)) // 8)
    save(root / "target" / "07.png", np.asarray(photo(40, 48, 7)) // 8)
    status, text = tool(verify, "Rain12", "--dir_data", "dataset")
    assert status == 1
    for words in ("04.png: the file is empty", "05.png is 48x40", "06: input and target are",
                  "probably not degraded", "probably not the same scene"):
        assert words in text
    Path("dataset/manifest/Rain12.json").write_text("[")
    assert "is damaged; delete it" in tool(verify, "Rain12", "--dir_data", "dataset")[1]
    assert "unknown data set 'Snow'" in tool(verify, "Snow", "--dir_data", "dataset")[1]


def test_verify_reports_equal_targets(tool, place):
    """Equal and almost equal targets are listed and are no error; similar photos and a shared target are not listed."""
    root = make_pairs(place / "dataset" / "Rain12", 12, size=(64, 80))
    noisy = photo(64, 80, 3).astype(float) + np.random.default_rng(0).normal(0, 3, (64, 80, 3))
    for number, picture in ((5, photo(64, 80, 3)), (9, noisy.clip(0, 255).astype(np.uint8)), (7, photo(64, 80, 1)),
                            (8, photo(64, 80, 0)[:, ::-1])):
        save(root / "target" / f"{number:02}.png", picture)
        save(root / "input" / f"{number:02}.png", veiled(picture))
    for number in range(3):
        save(place / f"dataset/Rain1400/rainy_image/1_{number}.png", veiled(photo(64, 80, 1)))
    save(place / "dataset/Rain1400/ground_truth/1.png", photo(64, 80, 1))
    status, text = tool(verify, "--dir_data", "dataset")
    assert status == 0, text
    assert [line.strip() for line in text.splitlines() if "note" in line] == [
        "note: 2 scenes occur more than once, with equal or almost equal targets: 01 = 07, 03 = 05 = 09"]
    assert "note" not in tool(verify, "--dir_data", "dataset", "--quick")[1]


def test_verify_finds_the_equal_scenes_of_rain100l(tool, real_data):
    status, text = tool(verify, "Rain100L", "--dir_data", real_data, "--manifest", "manifest")
    assert status == 0 and all(pair in text for pair in ("6 = 25", "7 = 36", "8 = 47")), text


def test_verify_counts(tool, place):
    make_pairs(place / "dataset" / "Rain12", 3)
    status, text = tool(verify, "Rain12", "--quick", "--dir_data", "dataset")
    assert status == 0 and "count differs from the published one" in text and not Path("dataset/manifest").exists()


@pytest.mark.parametrize("text, words", [
    ("1,default,inf", "line 2 holds a number that is no measure"), ("1,default,nan", "line 2 holds a number"),
    ("1,default,-1e308", "line 2 holds a number"), ("1,default,5,6", "line 2 has not as many columns as the head"),
    ("1", "line 2 has not as many columns as the head")])
def test_compare_names_the_line_of_a_bad_table(tool, place, text, words):
    Path("good.csv").write_text("image,protocol,psnr\n1,default,30.0\n")
    Path("bad.csv").write_text(f"image,protocol,psnr\n{text}\n")
    status, text = tool(compare, "good.csv", "bad.csv")
    assert status == 2 and f"cannot read the table bad.csv: {words}" in text


def test_compare_keeps_the_page_of_a_run_and_draws_any_name(tool, place):
    for path in ("$x^{$.csv", "b.csv"):
        Path(path).write_text("image,protocol,psnr\n1,default,30.0\n")
    Path("experiment/a").mkdir(parents=True)
    Path("experiment/a/args.json").write_text("{}")
    status, text = tool(compare, "$x^{$.csv", "b.csv", "--output", "experiment/a")
    assert status == 2 and "experiment/a is the folder of a run" in text and not Path("experiment/a/report.html").exists()
    assert tool(compare, "$x^{$.csv", "b.csv")[0] == 0
