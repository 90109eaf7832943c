"""Tests of the result page: its content, its size, and its behaviour in a browser."""
import json
import re
import time
from argparse import Namespace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import report
from report import curves, thumbnail
from tests import browser
from tests.conftest import TINY, make_pairs, photo, save, until, veiled
from tests.test_run import numbers
from tool import compare, guarded

ARGS = Namespace(report=True, save_results=False, save_gt=False)
EVIL = "<img src=x onerror=alert(1)>&\"'"


class Reader(HTMLParser):
    """Collects the tags, the text and the embedded data of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.text, self.inside, self.data = [], "", "", None
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = dict(attributes).get("id", tag) if tag == "script" else tag

    def handle_data(self, data):
        if self.inside == "data" and self.data is None:
            self.data = json.loads(data)
        elif self.inside not in ("script", "style"):
            self.text += data


def test_page_of_a_training_and_of_further_tests(run, trained):
    """Every test adds its set, the page states the protocol of its numbers, and links lead to the saved images."""
    page = Reader(trained / "report.html")
    result = numbers(trained)
    for words in ("smgarn", f"{result['parameters']:,}", "1*L1+1*L1:mask", "default v1", "Training loss", "All ",
                  "1 image (1 of 4: 03 … 03), fp32", f"{result['psnr']:.2f}", f"{result['ssim']:.4f}", f"{result['input_psnr']:.2f}"):
        assert words in page.text, words
    make_pairs(Path("dataset/näher & mehr"), 3)
    status, text = run("--test_only", "--pre_train", trained / "model/model_best.pt", "--data_test", "näher & mehr", "--save", "x", "--cpu",
                       "--protocol", "smgarn+promptir", "--save_results", "--chop", "--tile", "32")
    assert status == 0, text
    page = Reader(trained / "report.html")
    assert [card["set"] for card in page.data["cards"]] == ["näher & mehr"] * 3 + ["set"]
    for words in ("3 images, fp32, tiles of 32, overlap 16", "promptir v1", "7 px of the border left out", "näher & mehr"):
        assert words in page.text, words
    card = page.data["cards"][0]
    assert [view["key"] for view in card["views"]] == ["input", "result", "truth", "error"]
    assert card["views"][1]["full"]["href"] == "results-n%C3%A4her%20%26%20mehr/00.png"
    rows = (trained / "metrics-näher & mehr.csv").read_text().splitlines()
    assert card["numbers"]["psnr"] == pytest.approx(float(rows[1].split(",")[2]), abs=1e-5)
    assert not re.search(r"(src|href)=.?(https?:)?//", (trained / "report.html").read_text())


def test_the_page_is_the_same_again_and_needs_no_images(run, trained):
    before = (trained / "report.html").read_bytes()
    assert report.write(trained).read_bytes() == before
    assert run("--test_only", "--pre_train", trained / "model/model_best.pt", "--save", "x", "--cpu", "--no-report")[0] == 0
    assert not (trained / "cards-set.json").exists() and (trained / "report.html").read_bytes() == before
    assert "There are no thumbnails of set." in Reader(report.write(trained)).text


def test_without_report(run, pairs):
    assert run("--data_train", "set", "--save", "x", "--no-report", *TINY)[0] == 0
    assert not list(Path("experiment/x").glob("cards*")) and not Path("experiment/x/report.html").exists()
    assert "is finished" in run("--data_train", "set", "--save", "x", *TINY)[1]      # the flag makes no other experiment


def test_without_truth(run, trained):
    save(Path("photos/a.png"), veiled(photo(40, 48, 1)))
    status, text = run("--test_only", "--pre_train", trained / "model/model_best.pt", "--dir_demo", "photos", "--data_test", "Demo",
                       "--cpu")
    assert status == 0, text
    page = Reader(Path("experiment/test/report.html"))
    card, = page.data["cards"]
    assert [view["key"] for view in card["views"]] == ["input", "result"] and card["scores"] == [] and card["values"] == {}
    assert [order["label"] for order in page.data["orders"]] == ["Name"] and "restored without clean images" in page.text
    assert "Error map" not in page.text


def test_names_are_harmless(run, trained):
    """Names of files, flags and data sets that look like HTML are shown as text."""
    album = thumbnail.Album("set", 1, ARGS)
    album.add(f"</script>{EVIL}.png", *[torch.rand(1, 3, 8, 8)] * 3, {"psnr": 20.0, "ssim": 0.5})
    album.write(trained, {"name": EVIL, "version": 1})
    metrics = json.loads((trained / "metrics.json").read_text())
    (trained / "metrics.json").write_text(json.dumps({EVIL: metrics["set"] | {"weights": EVIL, "model": EVIL}}))
    flags = json.loads((trained / "args.json").read_text()) | {"loss": EVIL, EVIL: EVIL}
    (trained / "args.json").write_text(json.dumps(flags))
    with open(trained / "log.jsonl", "a") as log:
        log.write(json.dumps({"event": "epoch", "epoch": 2, "losses": {EVIL: 1.0}}) + "\n[1]\nnonsense\n")
    page = Reader(report.write(trained))
    assert page.data["cards"][0]["name"] == f"</script>{EVIL}.png" and EVIL in page.text
    assert [tag for tag, _ in page.tags].count("script") == 2 and "img" not in [tag for tag, _ in page.tags]
    assert not any("onerror" in attributes for _, attributes in page.tags)


@pytest.mark.parametrize("content", ["", "[", "[]", '{"format": "other"}', '{"format": "unweather cards 1", "cards": [{}]}',
                                     '{"format": "unweather cards 1", "saved": [], "protocol": {}, "data_set": "b", "count": 1, "cards": '
                                     '[{"name": "a", "height": 4, "width": 4, "numbers": {}, "views": {"input": "<", "result": ""}}]}'])
def test_damaged_files_are_left_out(trained, content):
    (trained / "cards-b.json").write_text(content)
    page = Reader(report.write(trained))
    assert "cards-b.json is missing or damaged and left out." in page.text and len(page.data["cards"]) == 1
    (trained / "metrics.json").write_text(content)
    (trained / "log.jsonl").unlink()
    assert "metrics.json" in Reader(report.write(trained)).text or content.startswith("{")


def test_size(place):
    """A page of 100 noise images stays below 5 MB; of a thousand images it shows a sample and states so."""
    rng = torch.Generator().manual_seed(1)
    for count in (100, 1000):
        album = thumbnail.Album("noise", count, ARGS)
        for number in range(count):
            x, output, target = (torch.rand(1, 3, *((320, 480) if count == 100 else (16, 16)), generator=rng) for _ in range(3))
            album.add(f"{number:04}", x, output, target, {"psnr": float(number % 317), "ssim": 0.1, "input_psnr": 9.0})
        album.write(place, {})
        page = report.write(place)
        assert page.stat().st_size < 5_000_000
    data, text = Reader(page).data, Reader(page).text
    values = sorted(number % 317 for number in range(1000))
    shown = sorted(card["values"]["psnr"] for card in data["cards"])
    assert len(shown) == 400 and shown[:100] == values[:100] and shown[-100:] == values[-100:]
    assert "Of the 1000 images of noise, 400 are shown: a quarter with the lowest PSNR" in text


def test_thumbnails_take_little_time():
    """The smallest of several processor times is compared, because other programs share the machine; the aim is 15 ms."""
    photos = [torch.from_numpy(photo(320, 480, seed).copy()).permute(2, 0, 1)[None] / 255 for seed in range(3)]
    album, seconds = thumbnail.Album("set", 10, ARGS), []
    for _ in range(10):
        start = time.process_time()
        album.add("a", *photos, {})
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.03


def test_error_map_is_black_where_nothing_is_wrong():
    target = torch.rand(1, 3, 8, 8) * 0.5
    output = target.clone()
    output[..., 4:] += 0.3
    colours = thumbnail.error_map(output, target, 8)
    assert np.all(colours[:, :4] == 0) and np.all(colours[:, 4:] == thumbnail.COLOURS[-1])


def test_curves():
    assert curves.chart("a", "", {"x": []}) == ""
    one, many = (curves.chart("loss", "", {"L1": [(float(n), -n / 7) for n in range(1, count)]}) for count in (2, 5000))
    assert "<polyline" not in one and 100 < many.count(",") < 600
    assert curves.ticks(0.13, 0.44, 5) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5]) and curves.ticks(1, 300, 6, whole=True)[-1] == 300
    assert curves.apart([5, 6, 50], 10, 0, 100) == [5, 15, 50]


@pytest.fixture
def two(run, place, capsys) -> Path:
    """The page that tool.compare writes for two runs, one of them with saved results."""
    make_pairs(place / "dataset" / "set", 6)
    for name, more in (("a", ["--save_results"]), ("b", ["--seed", "2"])):
        assert run("--data_train", "set", "--data_range", "1-3", "--loss", "1*L1", "--save", name, *TINY, *more)[0] == 0
    assert guarded("tool.compare", lambda: compare.run(["a", "b"])) == 0, capsys.readouterr()
    assert "page: experiment/compare/report.html" in capsys.readouterr().out
    return Path("experiment/compare/report.html")


def test_compare_page(two):
    page = Reader(two)
    assert "a and b" in page.text and "Difference to a" in page.text and "protocol default, v1: RGB and Y" in page.text
    card = page.data["cards"][0]
    assert [view["key"] for view in card["views"]] == ["input", "result a", "result b", "truth", "error a", "error b"]
    assert card["views"][1]["full"]["href"] == "../a/results-set/03.png" and (two.parent / "../a/results-set/03.png").is_file()
    assert card["values"]["over b"] == pytest.approx(card["values"]["psnr b"] - card["values"]["psnr a"])
    assert (page.data["left"], page.data["right"]) == ("result a", "result b")


@pytest.mark.skipif(bool(browser.missing()), reason=f"{browser.missing()}: not there, so no page is opened")
def test_in_a_browser(run, trained):
    """Slider, order, large view by keyboard, theme and widths work without a warning on the console."""
    make_pairs(Path("dataset/more"), 5, size=(40, 60))
    assert run("--test_only", "--pre_train", trained / "model/model_best.pt", "--data_test", "more", "--save", "x", "--cpu",
               "--save_results", "--save_gt")[0] == 0
    card, shown = ".cards li:first-child", "return [...document.querySelectorAll('.cards li')].map((li) => li.dataset.name)"
    cut = "return document.querySelector(arguments[0] + ' .handle').getAttribute('aria-valuenow')"
    title = "return document.getElementById('viewer').open && document.getElementById('viewer-name').textContent"
    choose = ("const s = document.querySelector(`select[name='${arguments[0]}']`);"
              "s.value = arguments[1]; s.dispatchEvent(new Event('change'))")
    with browser.Browser() as page:
        page.open(trained / "report.html")
        scores = {each["name"] + each["set"]: each["values"] for each in Reader(trained / "report.html").data["cards"]}
        assert len(page.js(shown)) == len(scores) == 6
        for kind, share in (("mouse", 0.2), ("touch", 0.8)):
            page.drag(f"{card} .frame", 0.5, share, kind)
            assert abs(int(page.js(cut, card)) - 100 * share) < 3
        assert page.js(title) is False                            # a drag is no click
        page.js(choose, "data set", "=more")
        for order, key, sign in ((0, "psnr", 1), (1, "psnr", -1), (2, "gain", -1)):
            page.js(choose, "sort", str(order))
            assert page.js(shown) == sorted((f"{n:02}" for n in range(5)), key=lambda name: sign * scores[name + "more"][key])
        page.js(choose, "sort", "4")
        assert page.js(shown) == [f"{n:02}" for n in range(5)]

        page.click(f"{card} .open")
        assert page.js(title) == "00"
        page.press("Right")
        assert page.js(title) == "01"
        page.press("Left", "Left")
        assert page.js(title) == "04"
        pressed = "return document.querySelector('#viewer-show [aria-pressed=true]').textContent"
        for key, name in (("1", "Input"), ("2", "Result"), ("3", "Truth"), ("4", "Error"), ("s", "Slider")):
            page.press(key)
            assert page.js(pressed) == name
        until(lambda: page.js("return document.querySelector('#stage img').naturalWidth") == 180)      # of a saved file
        page.press("+", "+")
        assert page.js("return document.getElementById('zoom').textContent") == "2.3×"
        page.press("0")
        page.pinch("#stage", 0.1, 0.3)
        assert float(page.js("return document.getElementById('zoom').textContent").rstrip("×")) == pytest.approx(3, abs=0.2)
        page.press("Escape")
        assert page.js(title) is False
        page.drag(f"{card} .frame", 0.3, 0.3)                     # a click
        assert page.js(title) == "00"
        page.press("Escape")

        before = page.js("return getComputedStyle(document.body).color")
        page.click("#theme")
        assert page.js("return getComputedStyle(document.body).color") != before
        for width in (375, 1280):
            page.size(width, 800)
            assert page.js("return document.documentElement.scrollWidth") == width
        assert page.complaints() == []


@pytest.mark.skipif(bool(browser.missing()), reason=f"{browser.missing()}: not there, so no page is opened")
def test_two_runs_in_a_browser(two):
    with browser.Browser(375, 800) as page:
        page.open(two)
        tags = "return [...document.querySelectorAll('.cards li:first-child .tag')].map((tag) => tag.textContent)"
        assert page.js(tags) == ["a", "b"] and page.js("return document.documentElement.scrollWidth") == 375
        assert page.js("return document.querySelectorAll('.cards .score.runs .run').length") == 3 * 3
        page.click(".cards li:first-child .open")
        page.press("5")
        assert page.js("return document.querySelector('#stage .tag').textContent") == "Error of a"
        assert page.js("return document.getElementById('stage').clientWidth") == 375
        assert page.complaints() == []
