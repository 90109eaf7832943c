"""Tests of tool.serve without HTTP: what is computed, by which weights, within which limits (tests/test_page.py has the page)."""
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from data import image
from model import weights
from restore import backend, jobs, worker
from runtime import zoo
from runtime.errors import UserError
from tests.conftest import PATIENCE, photo, save, until, veiled
from tests.test_export import make
from tool import serve

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{ } loop\n"


@pytest.fixture
def service(place) -> worker.Service:
    make("smgarn", "a.pt")
    make("unet", "b.pt")
    (place / "out").mkdir()
    return worker.Service(serve.find(["a.pt", "b.pt"]), whole=200 * 200)


def restored(path: str, picture: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return image.to_array(weights.load(path).restore(image.to_tensor(picture)[None])[0])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def huge(side: int) -> bytes:
    """Return a valid black PNG of side² pixels in one bit each, with an EXIF rotation, which makes some readers decode it at once."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    packer, row = zlib.compressobj(9), bytes(1 + (side + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    rotated = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"eXIf", rotated) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_photo_is_restored_whole(service, place):
    picture = veiled(photo(50, 70, 1))
    found = service.restore(save(place / "x.png", picture), "a (smgarn)", place / "out")
    assert (found.width, found.height, found.tiles) == (70, 50, 1)
    assert np.array_equal(image.read(place / "out/restored.png"), restored("a.pt", picture))
    assert np.array_equal(image.read(place / "out/before.png"), picture)
    assert np.array_equal(image.read(place / "out/after.png"), restored("a.pt", picture))


def test_results_keep_the_colour_profile(service, place):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    service.restore(save(place / "x.png", photo(50, 70, 1), icc_profile=profile), "a (smgarn)", place / "out")
    for name in ("restored", "before", "after"):
        assert Image.open(place / f"out/{name}.png").info["icc_profile"] == profile


def test_a_large_photo_is_restored_in_tiles(service, place, monkeypatch):
    monkeypatch.setattr(worker, "TILE", 128)
    monkeypatch.setattr(worker, "SHOWN", 100)
    picture, calls = veiled(photo(210, 300, 1)), []
    found = service.restore(save(place / "x.png", picture), "a (smgarn)", place / "out", lambda *part: calls.append(part))
    assert found.tiles == len(calls) > 4 and calls[-1] == (found.tiles, found.tiles)
    after = image.read(place / "out/restored.png")
    assert after.shape == picture.shape and np.abs(after.astype(int) - restored("a.pt", picture)).max() <= 1
    assert image.size(place / "out/before.png") == image.size(place / "out/after.png") == (70, 100)


def test_few_networks_are_kept(service, place, monkeypatch):
    monkeypatch.setattr(worker, "KEPT", 1)
    path = save(place / "x.png", photo(40, 40, 1))
    for name in (*service.weights, *service.weights):
        service.restore(path, name, place / "out")
        assert [key[0] for key in service.loaded] == [name]
    before = image.read(place / "out/restored.png")
    make("unet", "b.pt", ["--channels", "8"])
    os.utime("b.pt", ns=(1, 1))
    service.restore(path, "b (unet)", place / "out")
    assert not np.array_equal(before, image.read(place / "out/restored.png"))
    Path("b.pt").unlink()
    with pytest.raises(UserError, match="These weights can no longer be read"):
        service.restore(path, "b (unet)", place / "out")


@pytest.mark.parametrize("content, words", [
    (b"", "This file cannot be read as a photo: the file is empty."),
    (b"nonsense", "This file cannot be read as a photo: the image is damaged or of an unknown format."),
    (EPS, "This file cannot be read as a photo: the image is damaged or of an unknown format."),
    ("cut", "This file cannot be read as a photo: the file is truncated."),
    ("huge", "This photo has 196.0 million pixels; 100 million is the limit."),
    ("memory", "The memory is too small for a photo of 0.0 million pixels."),
])
def test_a_bad_file_is_a_sentence_without_a_path(service, place, monkeypatch, content, words):
    path = save(place / "x.png", np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8))
    if content == "memory":
        monkeypatch.setattr(worker.memory, "available", lambda: 60 * 60 * worker.BYTES - 1)
    else:
        path.write_bytes(path.read_bytes()[:3000] if content == "cut" else huge(14_000) if content == "huge" else content)
    if content == "huge":
        assert path.stat().st_size < 600_000
        monkeypatch.setattr(image.Image.Image, "load", None)          # whatever decodes the file fails
    with pytest.raises(UserError) as error:
        service.restore(path, "a (smgarn)", place / "out")
    assert str(error.value) == words and not list((place / "out").iterdir())


def test_only_weights_of_the_list(service, place):
    with pytest.raises(UserError, match="one of the weights in the list"):
        service.restore(save(place / "x.png", photo(40, 40, 1)), "a.pt", place / "out")


def test_weights_are_found(place, capsys, monkeypatch):
    monkeypatch.setattr(zoo, "ROOT", place / "zoo")
    with pytest.raises(UserError, match="there are no model files experiment/"):
        serve.find([])
    for folder in ("experiment/mine/model", "experiment/bad/model", "zoo/aio", "zoo/abc"):
        Path(folder).mkdir(parents=True)
    make("smgarn", "experiment/mine/model/model_best.pt")
    make("unet", "zoo/aio/model.safetensors")
    shutil.copyfile("zoo/aio/model.safetensors", "zoo/abc/model.safetensors")
    bad = Path("experiment/bad/model/model_best.pt")
    bad.write_bytes(b"nonsense")
    assert list(serve.find([])) == ["zoo:aio (unet)", "mine (smgarn)", "zoo:abc (unet)"]
    assert f"left out: {bad} is damaged" in capsys.readouterr().err
    with pytest.raises(UserError, match=f"{bad} is damaged"):
        serve.find([str(bad)])
    with pytest.raises(UserError, match=r"'zoo:x' is not in the zoo, which has zoo:aio, zoo:abc; a file of this name is \./zoo:x"):
        serve.find(["zoo:x"])
    assert len(serve.find(["zoo/aio/model.safetensors", "./zoo/../zoo/aio/model.safetensors"])) == 2


@pytest.mark.parametrize("flags, words", [
    (["--port", "70000"], "'70000' is not a whole number"), (["--address", "http://x"], "'http://x' is not NAME or NAME:PORT"),
    (["--time_limit", "0"], "'0' is not a number from 0.01"), (["--share"], "unknown flag --share")])
def test_bad_flags(flags, words):
    with pytest.raises(UserError, match=words):
        serve.arguments(flags)


@pytest.fixture
def process(place):
    """A worker process with the weights 'a'."""
    make("smgarn", "a.pt")
    found = worker.Worker({"a": Path("a.pt").resolve()}, 10**6, True, PATIENCE)
    yield found
    found.close()


def test_backend_and_precision_reach_the_process(place, monkeypatch, capfd):
    """tool.serve hands the flags to the process, which says which backend it uses."""
    monkeypatch.setenv(backend.LIMITS[0], "AVX2")         # openvino is never used under it, whether installed or not
    make("smgarn", "a.pt")
    made = []
    monkeypatch.setattr(serve, "Worker", lambda *arguments: made.append(worker.Worker(*arguments)) or made[0])
    ended = threading.Event()
    ended.set()
    serve.run(["--weights", "a.pt", "--backend", "openvino", "--test_precision", "bf16", "--port", str(free_port()), "--cpu"], ended)
    assert made[0].arguments[-1].precision == "bf16"
    process = worker.Worker(*made[0].arguments[:3], PATIENCE, *made[0].arguments[3:])
    try:
        process.restore(save(place / "x.png", photo(40, 40, 1)), "a (smgarn)", place, lambda done, count: None)
    finally:
        process.close()
    assert "the backend openvino is not used, because" in capfd.readouterr().out


def finish(queue: jobs.Jobs, key: str) -> dict:
    """Wait until a job has ended; return its state."""
    return until(lambda: (state := queue.state(key))["state"] in ("done", "failed") and state)


def add(queue: jobs.Jobs, write) -> str:
    """Add a job whose photo `write` makes at the given path."""
    with queue.arriving() as (key, job):
        write(job.photo)
        job.name = "a"
    return key


def test_a_stuck_photo_does_not_stop_the_others(process, place):
    """A photo whose file can be opened but never read is given up after the time limit, and the next one is restored."""
    queue = jobs.Jobs(process, place / "jobs")
    process.start()
    process.seconds = 0.5
    stuck = add(queue, os.mkfifo)
    state = finish(queue, stuck)
    assert state["state"] == "failed" and "took longer than 0.5 seconds and was given up" in state["text"]
    process.seconds = PATIENCE
    picture = veiled(photo(40, 50, 1))
    key = add(queue, lambda path: save(path, picture, format="PNG"))
    assert finish(queue, key)["text"].startswith("50 × 40 pixels restored with a in ")
    assert np.array_equal(image.read(place / "jobs" / key / "restored.png"), restored("a.pt", picture))
    assert not (place / "jobs" / key / "photo").exists()


def test_a_killed_process_is_replaced(process, place):
    """The kernel kills the process, as it does when the memory is full: the photo gets a sentence, the next one a new process."""
    queue = jobs.Jobs(process, place / "jobs")
    process.start()
    stuck = add(queue, os.mkfifo)
    until(lambda: queue.state(stuck)["state"] == "running")
    os.kill(process.process.pid, signal.SIGKILL)
    assert "ended by the system" in finish(queue, stuck)["text"]
    assert finish(queue, add(queue, lambda path: save(path, photo(40, 50, 1), format="PNG")))["state"] == "done"


def test_few_photos_wait(process, place):
    queue = jobs.Jobs(process, place / "jobs")
    process.start()
    first = add(queue, os.mkfifo)
    until(lambda: queue.state(first)["state"] == "running")
    keys = [add(queue, lambda path: save(path, photo(40, 50, 1), format="PNG")) for _ in range(jobs.WAITING)]
    assert [queue.state(key)["ahead"] for key in keys] == list(range(1, jobs.WAITING + 1))
    with pytest.raises(jobs.Full), queue.arriving():
        pass
    os.kill(process.process.pid, signal.SIGKILL)
    assert [finish(queue, key)["state"] for key in keys] == ["done"] * jobs.WAITING
    with pytest.raises(OSError, match="nothing came"), queue.arriving() as (key, _):
        raise OSError("nothing came")
    assert queue.state(key) is None and not (place / "jobs" / key).exists()


@pytest.mark.parametrize("name, value, left", [("KEPT", 2, 2), ("KEPT_BYTES", 2500, 2), ("KEPT_BYTES", 1, 1), ("HOUR", 5, 0)])
def test_old_results_are_deleted(place, monkeypatch, name, value, left):
    queue = jobs.Jobs(None, place)
    for number in range(4):
        folder = place / str(number)
        folder.mkdir()
        (folder / "restored.png").write_bytes(bytes(1000))
        job = queue.jobs[str(number)] = jobs.Job(folder)
        job.state, job.ended = "done", time.monotonic() - 10 + number
    monkeypatch.setattr(jobs, name, value)
    queue.tidy()
    kept = [str(number) for number in range(4)][4 - left:]
    assert list(queue.jobs) == kept == sorted(path.name for path in place.iterdir())


def test_eps_named_png_starts_no_program(service, place, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    path = place / "x.png"
    path.write_bytes(EPS)
    with pytest.raises(UserError, match="unknown format"):
        worker.check(path)
