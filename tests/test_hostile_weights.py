"""Model files that were made to do harm, or were damaged: one sentence, before memory or time is spent, in every door."""
import io
import zipfile
from pathlib import Path

import pytest
import torch

import unweather
from model import weights
from restore import worker
from runtime import files
from runtime.errors import UserError
from tool import export, serve

PIXELS = torch.zeros(3, 4)
FIRST = "mask_net.head.0.weight"          # the first tensor of SMGARN


def change(content: dict, **arguments) -> dict:
    return content | {"arguments": content["arguments"] | arguments}


def give(content: dict, value: object) -> dict:
    return content | {"state": content["state"] | {FIRST: value}}


CASES = [
    (lambda c: change(c, channels=10**7), "the argument 'channels' of smgarn cannot be 10000000"),
    (lambda c: change(c, channels=10**6), "cannot be built from the arguments in the file, channels 1000000, rgb_range 255.0, n_colors 3: "
                                          "they describe a larger network than the file contains"),
    (lambda c: change(c, channels=64), "they describe a larger network than the file contains"),
    (lambda c: change(c, channels=10**60), "cannot be 1000000000"),
    (lambda c: change(c, channels=[4]), "cannot be [4]"),
    (lambda c: change(c, channels="four"), "cannot be 'four'"),
    (lambda c: change(c, channels=True), "cannot be True"),
    (lambda c: change(c, channels="9" * 9000), "(9000 characters)"),
    (lambda c: change(c, rgb_range=float("nan")), "'rgb_range' of smgarn cannot be nan"),
    (lambda c: c | {"arguments": {1: 2}}, "a name in 'arguments' is not a text"),
    (lambda c: c | {"version": "9" * 9000, "arguments": {"x": 1}}, "(9000 characters)"),
    (lambda c: c | {"state": {1: PIXELS}}, "a name in 'state' is not a text"),
    (lambda c: {key: value for key, value in c.items() if key != "state"}, "it lacks 'state'"),
    (lambda c: c | {"state": dict(list(c["state"].items())[1:])}, "is missing"),
    (lambda c: give(c, 3), "has no shape"),
    (lambda c: give(c, PIXELS.to_sparse()), "float32, sparse_coo, cpu"),
    (lambda c: give(c, torch.quantize_per_tensor(PIXELS, 1.0, 0, torch.qint8)), "qint8"),
    (lambda c: give(c, torch.zeros(3, device="meta")), "meta"),
    (lambda c: give(c, PIXELS.to(torch.float8_e4m3fn)), "float8_e4m3fn"),
    (lambda c: give(c, PIXELS.to(torch.complex64)), "complex64"),
    (lambda c: give(c, torch.zeros(1).expand(1000, 1000)), "a value of its own for every element"),
    (lambda c: give(c, c["state"][FIRST] * torch.nan), f"'{FIRST}' contains values that are not finite"),
    (lambda c: give(c, c["state"][FIRST].double() * 1e300), f"'{FIRST}' contains values that are not finite"),
]


@pytest.mark.parametrize("make, words", CASES, ids=range(len(CASES)))
@pytest.mark.filterwarnings("ignore")
def test_a_bad_model_file_in_every_door(trained, fails, make, words, monkeypatch):
    """main, the export, the page and Python refuse a file with the same sentence, and build nothing from it."""
    torch.save(make(files.read_tensors(trained / "model/model_best.pt")), "bad.pt")
    asked = []
    monkeypatch.setattr(torch, "empty", lambda *sizes, real=torch.empty, **how: asked.append(real(*sizes, **how)) or asked[-1])
    assert words in fails("--test_only", "--pre_train", "bad.pt", "--data_test", "set", "--cpu")
    doors = [lambda: export.run(["bad.pt", "--torch"]), lambda: unweather.load("bad.pt"),
             lambda: worker.Service(serve.find(["bad.pt"]), 1)._method(next(iter(serve.find(["bad.pt"]))))]
    for door in doors:
        weights.forget()
        with pytest.raises(UserError) as caught:
            door()
        assert words in str(caught.value) or "can no longer be read" in str(caught.value)
    assert sum(each.untyped_storage().nbytes() for each in asked if not each.is_meta) < 10**6


def test_a_compressed_archive_is_not_unpacked(place, monkeypatch):
    torch.save({"x": torch.zeros(1000, 1000)}, "x.pt")
    with zipfile.ZipFile("x.pt") as whole, zipfile.ZipFile("bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in whole.namelist():
            bomb.writestr(entry, whole.read(entry))
    assert Path("bomb.pt").stat().st_size < 10_000
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the archive is unpacked"))
    with pytest.raises(UserError, match=r"bomb\.pt is a compressed archive"):
        files.read_tensors("bomb.pt")


def test_entries_that_overlap_are_not_read(place, monkeypatch):
    """An archive may name the same bytes many times, so that it states more than it has."""
    buffer = io.BytesIO()
    torch.save({"x": torch.zeros(1000)}, buffer)
    with zipfile.ZipFile(buffer, "a") as whole:
        first = whole.getinfo("archive/data/0")
        whole.filelist += [first] * 100
        whole.comment = b"x"              # makes zipfile write its table again
    Path("bomb.pt").write_bytes(buffer.getvalue())
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the archive is unpacked"))
    with pytest.raises(UserError, match=r"bomb\.pt is a compressed archive"):
        files.read_tensors("bomb.pt")


def test_the_number_of_steps_is_bounded(place):
    torch.save({"format": weights.FORMAT, "model": "sapnet", "arguments": {"recurrent_iter": 101}, "note": {}, "state": {}}, "x.pt")
    with pytest.raises(UserError, match="'recurrent_iter' of sapnet cannot be 101"):
        weights.read("x.pt")


def test_many_blocks_end_the_construction_at_once(place, monkeypatch):
    """The network is built only until it is larger than the file: 10⁶ blocks would take minutes."""
    built = []
    monkeypatch.setattr(torch.nn, "Conv2d", lambda *sizes, real=torch.nn.Conv2d, **how: built.append(1) or real(*sizes, **how))
    torch.save({"format": weights.FORMAT, "model": "two_stage_kd", "arguments": {"channels": 4, "blocks": 10**6}, "note": {},
                "state": {"x": torch.zeros(20_000)}}, "x.pt")
    with pytest.raises(UserError, match="a larger network than the file contains"):
        weights.read("x.pt")
    assert len(built) < 200


def test_a_note_that_contains_itself(trained):
    """The values in a file may form a cycle; they are walked through once."""
    content, ring = files.read_tensors(trained / "model/model_best.pt"), []
    ring.append(ring)
    torch.save(content | {"note": {"ring": ring}}, "ring.pt")
    assert weights.read("ring.pt").model == "smgarn"
