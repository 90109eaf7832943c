"""python -m tool.restore with photos and folders: places, subfolders, links, what it refuses, and the page in full size."""
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from data import image
from runtime.errors import UserError
from tests import browser
from tests.conftest import REPO, photo, python, save, until
from tests.test_folders import expected, long_ago, network_file
from tests.test_report import Reader
from tool import guarded, restore

__all__ = ["network_file"]


@pytest.fixture
def restored(network_file, capsys):
    """Run the tool with the network; restored('photos', …) -> (status, printed text)."""
    def call(*flags: str, weights: str = "w.pt") -> tuple[int, str]:
        status = guarded("tool.restore", lambda: restore.run([*flags, *(["--weights", weights] if weights else []), "--cpu"]))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out + err
    return call


def files_of(folder: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def near(path: str, pixels: np.ndarray) -> bool:
    return bool(np.abs(image.read(path).astype(int) - pixels).max() <= 1)


def test_a_photo(restored):
    status, text = restored("photos/a.png")
    assert status == 0 and "before and after: " in text, text
    assert near("photos/a_restored.png", expected("photos/a.png"))
    assert files_of("photos") == sorted(["a.png", "a_restored.png", "b.png", "c.png", *(f"a_restored_report/{name}" for name in (
        ".lock", "args.json", "cards-a.json", "log.jsonl", "log.txt", "metrics.json", "report.html", "restored-a.json", "restored-a.jsonl",
        "times.jsonl"))])


@pytest.mark.parametrize("output, result", [("out.jpg", "out.jpg"), ("new/out.webp", "new/out.webp"), ("new", "new/a.png"),
                                            ("photos", None), ("out.tiff", None), ("w.pt", None), ("out.jpeg", None), ("out.JPG", None)])
def test_the_place_of_a_photo(restored, output, result):
    """A photo never replaces its original or another file."""
    before = Path("photos/a.png").read_bytes(), Path("w.pt").read_bytes()
    status, text = restored("photos/a.png", "-o", output)
    assert (Path("photos/a.png").read_bytes(), Path("w.pt").read_bytes()) == before
    if result:
        assert status == 0 and Path(result).is_file(), text
    else:
        assert status == 2, text
        assert ("and this program did not write it" in text) if output == "photos" else "its name must end in .png, .jpg, .webp" in text


def test_a_folder_with_subfolders(restored):
    save(Path("photos/sub/a.png"), photo(30, 20, 7))
    save(Path("photos/sub/deep er/a.jpg"), photo(30, 20, 8))
    save(Path("photos/.hidden/x.png"), photo(30, 20, 9))
    status, text = restored("photos", "--format", "webp")
    assert status == 0 and "photos: 5 images, restored" in text, text
    assert files_of("photos_restored") == ["a.webp", "b.webp", "c.webp", "sub/a.webp", "sub/deep er/a.webp"]
    page = Reader(Path("photos_restored_report/report.html"))
    card = next(card for card in page.data["cards"] if card["name"] == "sub/deep er/a")
    assert [view["full"]["href"] for view in card["views"]] == ["../photos/sub/deep%20er/a.jpg", "../photos_restored/sub/deep%20er/a.webp"]
    assert "photos was restored without clean images: 5 images, fp32" in page.text
    assert "numbers" not in [attributes.get("id") for _, attributes in page.tags] and "table" not in [tag for tag, _ in page.tags]
    status, text = restored("photos", "--format", "webp")
    assert status == 0 and "5 of 5 images are already restored and kept" in text, text
    restored("photos", "--format", "png", "--strength", "0.5")
    assert files_of("photos_restored") == ["a.png", "b.png", "c.png", "sub/a.png", "sub/deep er/a.png"]


def test_links_and_damaged_photos_are_named(restored):
    """The photos that can be read are restored; every other one is named, and the exit status is 2."""
    save(Path("photos/sub/x.png"), photo(30, 20, 7))
    save(Path("elsewhere/y.png"), photo(30, 20, 8))
    Path("photos/linked").symlink_to(Path("elsewhere").resolve())
    Path("photos/sub/loop").symlink_to(Path("photos").resolve())
    Path("photos/self.png").symlink_to("self.png")
    Path("photos/sub/bad.jpg").write_bytes(b"no picture")
    status, text = restored("photos")
    assert status == 2 and "3 of 8 images could not be restored; the other 5 were restored" in text, text
    for words in ("photos/self.png: it is a link that leads nowhere", "photos/sub/loop: it is a link to a folder that is read already",
                  "photos/sub/bad.jpg: the image is damaged"):
        assert f"not restored: cannot read the image {words}" in text
    assert files_of("photos_restored") == ["a.png", "b.png", "c.png", "linked/y.png", "sub/x.png"]


def test_other_files_are_never_replaced(restored):
    save(Path("photos_restored/b.png"), photo(8, 8, 1))
    before = Path("photos_restored/b.png").read_bytes()
    status, text = restored("photos")
    assert status == 2, text
    assert "photos_restored/b.png exists, and this program did not write it, or it was changed since; move it away, or name" in text
    assert files_of("photos_restored") == ["b.png"] and Path("photos_restored/b.png").read_bytes() == before
    assert not Path("photos_restored_report").exists()
    Path("photos_restored/b.png").rename("photos_restored/mine.png")
    assert restored("photos")[0] == 0
    assert restored("photos", "--format", "jpg")[0] == 0
    assert files_of("photos_restored") == ["a.jpg", "b.jpg", "c.jpg", "mine.png"]


def test_a_moved_report_deletes_nothing(restored):
    """What an earlier run wrote elsewhere under the same names is not deleted."""
    assert restored("photos", "-o", "first")[0] == 0
    Path("first_report").rename("photos_restored_report")
    for name in "abc":
        save(Path(f"photos_restored/{name}.jpg"), photo(8, 8, 1))
    assert restored("photos")[0] == 0
    assert len(files_of("photos_restored")) == 6 and len(files_of("first")) == 3


def test_two_runs_to_one_place(restored):
    """The second one ends at once and changes nothing; the lock is free again afterwards."""
    held = ("from runtime import files\nwith files.locked(files.Path('photos_restored_report/.lock'), None):\n"
            "    print('held', flush=True)\n    input()")
    with subprocess.Popen(python("-c", held), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env=os.environ | {"PYTHONPATH": str(REPO)}) as other:
        assert other.stdout.readline().strip() == b"held"
        status, text = restored("photos")
        assert status == 2 and f"is in use by process {other.pid} on " in text, text
        assert not Path("photos_restored").exists()
        other.communicate(b"\n")
    assert restored("photos")[0] == 0 and len(files_of("photos_restored")) == 3


def test_flags_of_a_network_without_value(restored, monkeypatch):
    """A released file may need them, as SAPNet's --no-use_dilation."""
    seen = []
    monkeypatch.setattr(restore.option, "parse", lambda flags: seen.extend(flags) or (_ for _ in ()).throw(UserError("seen")))
    restored("photos", "--model", "sapnet", "--no-use_dilation", "--recurrent_iter", "3", "--n_threads", "0")
    assert {"--model=sapnet", "--no-use_dilation", "--recurrent_iter=3", "--n_threads=0"} <= set(seen)


def test_a_full_memory_is_one_sentence(restored, monkeypatch):
    error = RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed.")
    monkeypatch.setattr(restore.tester, "test", lambda *_, **__: (_ for _ in ()).throw(error))
    status, text = restored("photos")
    assert status == 1 and "the memory is full, or the system ended a process that reads images" in text, text


def test_strength_mixes(restored):
    before, after = image.read("photos/a.png").astype(float), expected("photos/a.png").astype(float)
    for number, strength in enumerate((0, 0.3, 1)):
        assert restored("photos/a.png", "-o", f"{number}.png", "--strength", str(strength))[0] == 0
        assert np.abs(image.read(f"{number}.png") - (before + strength * (after - before))).max() <= 1.5
    assert "is not a number from 0 to 1" in restored("photos/a.png", "--strength", "1.1")[1]


@pytest.mark.parametrize("flags, words", [
    (("none",), "there is no file or folder none"),
    (("w.pt",), "w.pt is not an image or a video by its name; known file types: .bmp, .jpeg"),
    (("http://example.com/x.jpg",), "there is no file or folder http:/example.com/x.jpg"),
    (("photos", "-o", "photos/out"), "photos/out lies in the folder of the photos"),
    (("photos", "-o", "photos"), "photos lies in the folder of the photos"),
    (("photos", "-o", "w.pt"), "w.pt is a file, and a folder is needed; name another place with -o"),
    (("empty",), "empty holds no image"), (("x.heic",), "x.heic is a HEIC or AVIF image, which is not read; convert it"),
    (("photos", "--bogus"), "unknown flag --bogus"), (("/",), "name the folder for the results of / with -o")])
def test_wrong_input(restored, flags, words):
    Path("empty").mkdir()
    Path("x.heic").write_bytes(b"x")
    status, text = restored(*flags)
    assert status == 2 and words in text.splitlines()[-1], text
    assert not list(Path().glob("*_re*")) and not Path("photos/out").exists()


def test_weights_are_needed(restored):
    status, text = restored("photos", "--weights=", weights="")
    assert status == 2 and "--weights names no file; leave it out for those of the zoo" in text, text
    assert "'zoo:none' is not in the zoo" in restored("photos", weights="zoo:none")[1]
    assert "the file none.pt does not exist" in restored("photos", weights="none.pt")[1]
    assert "photos/a.png is damaged or is not a file of weights" in restored("photos", weights="photos/a.png")[1]


def test_a_foreign_report_folder_stays(restored):
    save(Path("photos_restored_report/report.html.png"), photo(8, 8, 1))
    status, text = restored("photos")
    assert status == 2 and "photos_restored_report exists, and this program did not write it" in text, text


def test_targets_do_not_matter(restored):
    """A folder with clean images is restored like any other; main.py measures it."""
    for name in "abc":
        save(Path(f"photos/target/{name}.png"), image.read(f"photos/{name}.png"))
    status, text = restored("photos")
    assert status == 0 and "no ground truth" in text, text
    assert files_of("photos_restored") == ["a.png", "b.png", "c.png"]


def test_main_takes_a_file_and_subfolders(run, network_file):
    save(Path("photos/sub/x.png"), photo(30, 20, 7))
    flags = ("--test_only", "--pre_train", "w.pt", "--cpu", "--n_threads", "0", "--save_results", "--dir_demo")
    for place in ("photos", "photos/sub/x.png"):
        status, text = run(*flags, place)
        assert status == 0, text
    assert files_of("experiment/test/results-photos") == ["a.png", "b.png", "c.png", "sub/x.png"]
    assert files_of("experiment/test/results-x") == ["x.png"]
    assert set(json.loads(Path("experiment/test/metrics.json").read_text())) == {"photos", "x"}
    assert run(*flags, ".", "--save", "all")[0] == 0                     # results in experiment/ are no photos
    assert "photos/sub/x.png" in files_of("experiment/all/results-" + Path.cwd().name)
    assert not [name for name in files_of("experiment/all/results-" + Path.cwd().name) if name.startswith("experiment")]


@pytest.mark.skipif(bool(browser.missing()), reason=f"{browser.missing()} is missing")
def test_the_page_shows_full_size(restored):
    """The large view shows the files themselves, an original that browsers do not show as a copy; also after both are moved."""
    save(Path("photos/sub/scan.tif"), photo(700, 900, 5))
    save(Path("photos/a.png"), photo(800, 1000, 6))
    assert restored("photos")[0] == 0
    Path("moved").mkdir()
    for name in ("photos", "photos_restored", "photos_restored_report"):
        Path(name).rename(f"moved/{name}")
    with browser.Browser() as window:
        window.open(Path("moved/photos_restored_report/report.html"))
        sizes = "return [...document.querySelectorAll('#stage img')].map(each => [each.naturalWidth, each.naturalHeight])"
        for name, size in (("a", [1000, 800]), ("sub/scan", [900, 700])):
            window.js("[...document.querySelectorAll('.open')].find(each => each.textContent === arguments[0]).click()", name)
            until(lambda size=size: window.js(sizes) == [size, size])
            assert window.js("return document.getElementById('viewer-small').hidden")
            window.press("Escape")
        assert window.complaints() == []
        assert window.js("return document.querySelector('table') === null")


def test_files_that_others_wrote_beside_the_results_stay(restored):
    """A file of the user named like a result of another ending, or like that of an unreadable photo, stays as it is."""
    Path("photos/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert restored("photos")[0] == 2
    for name in ("a.jpg", "broken.png"):
        Path("photos_restored", name).write_text("mine")
    Path("photos/broken.png").unlink()
    assert restored("photos", "--strength", "0.5")[0] == 0
    status, text = restored("photos", "--format", "jpg")
    assert status == 2 and "a.jpg exists, and this program did not write it" in text
    assert [Path("photos_restored", name).read_text() for name in ("a.jpg", "broken.png")] == ["mine", "mine"]
    assert files_of("photos_restored") == ["a.jpg", "a.png", "b.png", "broken.png", "c.png"]


def test_a_link_gets_its_result_beside_itself(restored):
    Path("links").mkdir()
    Path("links/one.png").symlink_to(Path("photos/a.png").resolve())
    Path("links/all").symlink_to(Path("photos").resolve())
    assert restored("links/one.png")[0] == 0 and restored("links/all")[0] == 0
    assert near("links/one_restored.png", expected("photos/a.png")) and files_of("links/all_restored") == ["a.png", "b.png", "c.png"]
    assert files_of("photos") == ["a.png", "b.png", "c.png"]


def test_results_are_no_photos(restored):
    """A link in the folder of the photos that leads to their results adds nothing to a second run."""
    Path("photos/up").symlink_to("..")
    for _ in range(2):
        assert "photos: 3 images, restored" in restored("photos")[1]


def test_a_network_of_the_user(restored, network_file):
    Path("net.py").write_text("from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
                              "        self.conv = nn.Conv2d(3, 3, 1)\n    def forward(self, x):\n        return self.conv(x)\n")
    torch.save({"conv.weight": torch.eye(3)[:, :, None, None], "conv.bias": torch.zeros(3)}, "foreign.pth")
    status, text = restored("photos/a.png", "--model", "external", "--arch", "net.py:Net", weights="foreign.pth")
    assert status == 0 and near("photos/a_restored.png", image.read("photos/a.png")), text


def test_a_huge_limit_is_refused(restored):
    assert restored("photos/a.png", "--whole", "1e308") == (2, "tool.restore: error: argument --whole: '1e308' is not a number from 0 to "
                                                               "1000000.0\n")


def test_a_result_is_kept_only_for_its_own_photo(restored):
    """A photo that is added later and takes the name of a result is restored, however old it is."""
    assert restored("photos")[0] == 0
    save(Path("photos/a.bmp"), photo(30, 20, 7))
    long_ago("photos/a.bmp")
    status, text = restored("photos")
    assert status == 0 and "2 of 4 images are already restored" in text
    assert near("photos_restored/a.png", expected("photos/a.bmp")) and near("photos_restored/a_2.png", expected("photos/a.png"))


@pytest.mark.parametrize("flags", [("",), (".", "-o", "")])
def test_an_empty_name_is_not_the_working_folder(restored, flags):
    status, text = restored(*flags)
    assert status == 2
    assert "an empty text names no file or folder" in text
