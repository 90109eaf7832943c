"""The index of image sizes, the form of items that worker processes share, and what the start of the program imports."""
import hashlib
import json
import os
import resource
import subprocess
from pathlib import Path

import numpy as np
import pytest

import option
from contract import Item
from data import cache, headers, image, paired, runs
from data.packed import Packed
from data.source import View
from runtime import process
from runtime.errors import UserError
from runtime.log import Log
from tests import loading
from tests.conftest import REPO, TINY, make_pairs, photo, python, save
from tests.test_folders import network_file

__all__ = ["network_file"]
HEAVY = ("scipy.fft", "scipy.ndimage", "scipy.special", "skimage", "matplotlib", "torchvision", "onnx", "onnxruntime", "openvino",
         "imageio", "lpips", "pyiqa", "spandrel", "einops", "torch._dynamo", "torch.onnx._internal")


@pytest.fixture
def many(tmp_path, monkeypatch) -> list[str]:
    """The paths of 9 images of which each start keeps an index, as if they were many."""
    monkeypatch.setenv("UNWEATHER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(headers, "MANY", 5)
    headers.forget()
    yield [str(save(tmp_path / "set" / f"{number}.png", photo(8, 9 + number, number))) for number in range(9)]
    headers.forget()


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The paths whose headers are read."""
    found, real = [], image.header
    monkeypatch.setattr(image, "header", lambda path: found.append(str(path)) or real(path))
    return found


def start(paths: list[str]) -> list[tuple[int, int]]:
    """Return the sizes of images as another start of the program finds them."""
    headers.forget()
    headers.scan(paths)
    return [headers.size(path) for path in paths]


def sizes(paths: list[str]) -> list[tuple[int, int]]:
    return [image.size(path) for path in paths]


def index_of(folder: str) -> Path:
    place, = Path(folder).parent.parent.joinpath("cache/headers").iterdir()
    return place


def test_headers_are_read_once(many, reads):
    assert start(many) == [(8, 9 + number) for number in range(9)]
    assert len(reads) == 9
    assert start(many) == [(8, 9 + number) for number in range(9)]
    assert len(reads) == 9


def test_a_changed_image_is_read_again(many, reads):
    """Also if its length and the time of its last change are as before."""
    start(many)
    before = Path(many[3]).stat()
    save(Path(many[3]), photo(8, 20, 3))
    os.utime(many[3], ns=(before.st_atime_ns, before.st_mtime_ns))
    reads.clear()
    assert start(many)[3] == (8, 20)
    assert set(reads) == {many[3]}
    save(Path(many[4]), photo(30, 20, 3))                           # while the program runs, too
    assert headers.size(many[4]) == (30, 20)


def test_an_index_of_few_images_is_not_kept(many, reads):
    start(many[:4])
    assert not Path(many[0]).parent.parent.joinpath("cache").exists()


def test_a_new_image_is_found_beside_the_index(many, reads):
    start(many)
    reads.clear()
    new = str(save(Path(many[0]).with_name("new.png"), photo(7, 7, 1)))
    assert start([*many, new])[-1] == (7, 7)
    assert set(reads) == {new}


def forged(content: object) -> bytes:
    body = json.dumps(content).encode()
    return hashlib.sha256(body).digest() + body


@pytest.mark.parametrize("damage", [
    lambda whole: whole[:100], lambda whole: b"", lambda whole: whole[:-9] + b"9" + whole[-8:], lambda whole: b"x" * 5000,
    lambda whole: forged([]), lambda whole: forged({"folder": 3}), lambda whole: forged({"folder": "/else", "images": {}}),
    lambda whole: forged({**json.loads(whole[32:]), "images": 7}),
    lambda whole: forged({**json.loads(whole[32:]), "images": {"../../x.png": "1 2 3", "0.png": 5, "1.png": "x", "2.png": "a 1 1"}}),
    lambda whole: forged({**json.loads(whole[32:]), "images": {name: line.rpartition(" ")[0] + " 9" * 40
                                                               for name, line in json.loads(whole[32:])["images"].items()}})],
    ids=["cut", "empty", "changed", "foreign", "list", "number", "other folder", "no images", "bad lines", "too large"])
def test_a_damaged_index_is_ignored(many, reads, damage):
    expected = start(many)
    place = index_of(many[0])
    place.write_bytes(damage(place.read_bytes()))
    reads.clear()
    assert start(many) == expected == sizes(many)
    assert len(reads) >= 9
    assert not any("x.png" in name for name in headers._known)
    reads.clear()
    assert start(many) == expected
    assert reads == []                                             # it has been written again


def test_an_index_that_cannot_be_written(many, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNWEATHER_CACHE", str(tmp_path / "file"))
    assert start(many) == sizes(many)


def test_a_damaged_image_is_named_each_time(many):
    Path(many[5]).write_bytes(b"x")
    for _ in range(2):
        with pytest.raises(UserError, match=r"5\.png"):
            start(many)


def test_sizes_of_hazy_images_come_from_the_index(many, reads, tmp_path):
    """The layout of RESIDE needs the sizes of all pairs when they are listed, for training and for testing."""
    for number in range(1, 7):
        save(tmp_path / "haze" / "hazy" / f"{number}_0.8.png", photo(10, 12, number))
        save(tmp_path / "haze" / "clear" / f"{number}.png", photo(12, 16, number))
    layout = paired.Layout("hazy", "clear", pattern=r"(\d+)(_.+)?", view="centre")
    first = paired.items(tmp_path / "haze", layout)
    reads.clear()
    headers.forget()
    assert paired.items(tmp_path / "haze", layout) == first
    assert [item.images["image"].value for item in first] == [(10, 12)] * 6 and reads == []


def test_a_second_start_opens_no_image(place, monkeypatch, reads):
    """Neither images nor the files of the image cache are opened to check a set that has not changed, but their lengths are checked."""
    make_pairs(place / "dataset" / "set", 12)
    monkeypatch.setenv("UNWEATHER_CACHE", str(place / "cache"))
    monkeypatch.setattr(headers, "MANY", 5)
    args = option.parse(["--data_train", "set", "--no-audit"])
    runs(args)
    cached = sorted(Path("dataset/bin").rglob("*.npy"))
    decoded, real = [], image.read
    monkeypatch.setattr(image, "read", lambda path: decoded.append(str(path)) or real(path))
    reads.clear()
    runs(args)
    assert len(cached) == 24 and decoded == [] and set(reads) <= {f"dataset/set/{kind}/11.png" for kind in ("input", "target")}
    os.truncate(cached[0], 200)
    runs(args)
    assert decoded == ["dataset/set/input/00.png"] and cached[0].stat().st_size > 200


def test_packed_items_are_equal(tmp_path):
    array = photo(5, 6, 1)
    items = [Item("a b", {"input": tmp_path / "ü\udce4.png", "image": View(tmp_path / "x", "left")}),
             Item("c", {"input": View(View(tmp_path / "y", "right"), "rain", (0.1, 2**62, 3)), "image": array}, 2),
             Item("d", {"image": array, "mask": Path("m.png")}, 1)]
    packed = Packed(items)
    assert len(packed) == len(list(packed)) == 3 and packed.kinds.tolist() == [0, 2, 1] and packed[-1].name == "d"
    assert packed.counts == {"input": 2, "image": 3, "mask": 1}
    assert packed[1].images["image"] is packed[2].images["image"] is array
    assert packed[0] == Item("a b", {"input": str(tmp_path / "ü\udce4.png"), "image": View(str(tmp_path / "x"), "left")})
    assert packed[1].images["input"] == View(View(str(tmp_path / "y"), "right"), "rain", (0.1, 2**62, 3))
    with pytest.raises(IndexError):
        packed[3]


def test_cached_images_are_found_by_their_paths(place):
    root = make_pairs(Path("dataset/set"), 3)
    sources = image.listing(root / "input")
    read = cache.Cached(Path("bin"), Path("dataset"), cache.fill(Path("bin"), Path("dataset"), sources[:2]))
    expected = [image.read(path) for path in sources]
    for path in sources[:2]:
        path.write_bytes(b"")                                      # only the cache has it
    assert all(np.array_equal(read(each), pixels) for path, pixels in zip(sources, expected) for each in (path, str(path)))
    assert not read(sources[0]).flags.writeable


def test_cached_images_keep_no_file_open(place):
    """A process may open 1,024 files, as is usual, and a data set has more images."""
    root = make_pairs(Path("set"), 30, size=(4, 4))
    sources = image.listing(root / "input")
    read = cache.Cached(Path("bin"), Path(), cache.fill(Path("bin"), Path(), sources))
    before = len(os.listdir("/dev/fd"))
    kept = [read(path) for path in sources]
    assert len(kept) == 30 and len(os.listdir("/dev/fd")) <= before


def test_memory_of_a_worker_stays_flat(place):
    """Items as a list of objects would become the worker's own: 30 MB of these."""
    make_pairs(Path("dataset/set"), 4, size=(8, 8))
    code = """
from data.packed import Packed
from tests import loading
batches = loading.training("dataset", "set", patch=8)
batches.dataset.items = Packed([item._replace(images={**item.images}) for item in batches.dataset.items for _ in range(15_000)])
print(len(batches.dataset), *(line["Private_Dirty"] for line in loading.memory(batches, 1)))
"""                                       # in a process of its own: the one of the tests holds objects of other tests
    result = subprocess.run(python("-c", code), env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, cwd=place)
    assert result.returncode == 0, result.stderr
    count, before, after = map(int, result.stdout.splitlines()[-1].split())
    assert count == 45_000 and after - before <= 16


def test_patches_are_counted(place):
    loading.make(Path("dataset/set"), 12, 70, 80)
    assert loading.patches(loading.training("dataset", "set"), 64) > 0


def test_the_start_imports_nothing_heavy():
    """Neither do the parser and --help of a training; what is imported takes time at every start."""
    code = f"import main, option, sys; option.parse([]); print([name for name in {HEAVY} if name in sys.modules])"
    for first in (code, code.replace("main, option", "unweather, option").replace("option.parse([]); ", "")):
        result = subprocess.run(python("-c", first), env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, cwd=REPO)
        assert result.stdout == "[]\n", result.stdout + result.stderr


def limit_files() -> None:
    """Limit the size of the files that this process writes: 100 kB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.mark.parametrize("command", [
    ["--test_only", "--pre_train", "w.pt", "--dir_demo", "photos", "--save_results", "--n_threads", "1", "--cpu"],
    ["--data_train", "set", "--loss", "1*L1", "--ext", "img", "--save", "x", *TINY, "--n_threads", "1", "--patch_size", "96"]],
    ids=["restore", "train"])
def test_a_limit_on_the_size_of_files_ends_the_program(place, command, network_file):
    """A worker process cannot hand its images over; the main process would wait for them for ever."""
    make_pairs(Path("dataset/set"), 4, size=(200, 200))
    for number in range(2):
        save(Path(f"photos/{number}.png"), photo(200, 210, number))
    os.rename(network_file, "w.pt")
    result = subprocess.run(python(str(REPO / "main.py"), *command), env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True,
                            text=True, timeout=300, preexec_fn=limit_files)
    assert result.returncode == 1, result.stdout + result.stderr
    sentence = result.stderr.strip().splitlines()[-1]
    assert "a worker process cannot hand over" in sentence and "(ulimit -f)" in sentence and "--n_threads 0" in sentence


def test_16_bits_are_said_once(many, run, place, monkeypatch):
    from PIL import Image
    monkeypatch.setattr(process, "_log", Log())
    for number in range(3):
        Path("photos").mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 9), 300 * number, np.uint16)).save(f"photos/{number}.png")
    paths = [str(path) for path in image.listing(Path("photos"))]
    start(paths * 2)
    assert image._told.waiting.count("images of 16 bits are read with 8 bits, as photos/0.png") == 1
    assert sum("16 bits" in line for line in image._told.waiting) == 1

