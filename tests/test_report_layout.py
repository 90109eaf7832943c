"""The layout of the result page in a browser: cards without holes, and tables on a phone."""
import itertools
from pathlib import Path

import pytest

from tests import browser
from tests.conftest import make_pairs, photo, save, veiled

pytestmark = pytest.mark.skipif(bool(browser.missing()), reason=f"{browser.missing()}: not there, so no page is opened")
FRAMES = """return [...document.querySelectorAll('.cards li')].map((li) => {
  const box = li.querySelector('.frame').getBoundingClientRect();
  return [box.left, box.right, box.top, box.bottom];
})"""


@pytest.fixture
def mixed(run, trained) -> Path:
    """A result page of landscapes, portraits, a square and a panorama in turn."""
    for number, size in enumerate([(40, 60), (60, 40), (40, 60), (48, 48), (60, 40), (30, 90), (40, 60), (60, 40), (40, 60)]):
        save(Path(f"dataset/mixed/target/{number}.png"), photo(*size, number))
        save(Path(f"dataset/mixed/input/{number}.png"), veiled(photo(*size, number)))
    status, text = run("--test_only", "--pre_train", trained / "model/model_best.pt", "--data_test", "mixed", "--save", "y", "--cpu")
    assert status == 0, text
    return Path("experiment/y/report.html")


def test_portraits_and_landscapes_leave_no_holes(mixed):
    """The frames of a row have one height, and every row but the last fills the width; a phone shows one image in a row."""
    with browser.Browser(1280, 900) as page:
        page.open(mixed)
        left, width = page.js("const box = document.getElementById('cards').getBoundingClientRect(); return [box.left, box.width]")
        rows: dict[int, list] = {}
        for box in page.js(FRAMES):
            rows.setdefault(round(box[2]), []).append(box)
        assert len(rows) > 1 and any(len({round(box[1] - box[0]) for box in row}) > 1 for row in rows.values())
        for row in rows.values():
            assert max(box[3] for box in row) - min(box[3] for box in row) < 1
            assert all(abs(after[0] - before[1] - 20) < 1 for before, after in itertools.pairwise(row)) and abs(row[0][0] - left) < 1
        assert all(abs(row[-1][1] - left - width) < 1 for row in list(rows.values())[:-1])
        assert page.complaints() == []
        page.size(390, 800)
        assert {round(box[1] - box[0]) for box in page.js(FRAMES)} == {358}
        assert page.js("return document.documentElement.scrollWidth") == 390


def test_tables_scroll_on_a_phone(run, mixed):
    """The page never scrolls sideways; a wide table does, and the names of its sets and rows stay in view."""
    make_pairs(Path("dataset/Rain100L"), 1)
    status, text = run("--test_only", "--pre_train", "experiment/x/model/model_best.pt", "--data_test", "AIO3", "--protocol",
                       "default+promptir", "--save", "y", "--cpu")
    assert status == 0, text
    with browser.Browser(390, 800) as page:
        page.open(mixed)
        assert page.js("return document.documentElement.scrollWidth") == 390
        wide = page.js("return [...document.querySelectorAll('.wide')].map((table) => [table.scrollWidth, table.clientWidth])")
        assert len(wide) == 3 and all(inner > outer for inner, outer in wide)
        for moved in (0, 10_000):
            page.js("for (const table of document.querySelectorAll('.wide')) table.scrollLeft = arguments[0]", moved)
            boxes = page.js("return [...document.querySelectorAll('.set div, tbody tr:not(.set) th')]"
                            ".map((each) => each.getBoundingClientRect()).map((box) => [box.left, box.right])")
            assert len(boxes) > 8 and all(0 < left < right <= 390 for left, right in boxes)
        assert page.js("return document.documentElement.scrollWidth") == 390
