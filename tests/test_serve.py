"""Tests of tool.serve: what it computes, without Gradio; then the page in a browser, if Gradio and Chromium are installed."""
import base64
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from data import image
from model import weights
from runtime.errors import UserError
from tests import conftest
from tests.conftest import PATIENCE, REPO, photo, python, save, veiled
from tests.test_export import make
from tool import guarded, serve

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"         # the key of an element's reference, by the W3C's WebDriver


@pytest.fixture
def service(place) -> serve.Service:
    make("smgarn", "a.pt")
    make("unet", "b.pt")
    return serve.Service(serve.find(["a.pt", "b.pt"]), whole=200 * 200)


def restored(path: str, picture: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return image.to_array(weights.load(path).restore(image.to_tensor(picture)[None])[0])


def test_a_photo_is_restored_whole(service, place):
    picture = veiled(photo(50, 70, 1))
    found = service.restore(save(place / "x.png", picture), "a (smgarn)")
    assert np.array_equal(found.before, picture) and found.tiles == 1
    assert np.array_equal(found.after, restored("a.pt", picture))


def test_a_large_photo_is_restored_in_tiles(service, place, monkeypatch):
    monkeypatch.setattr(serve, "TILE", 128)
    picture, calls = veiled(photo(210, 300, 1)), []
    found = service.restore(save(place / "x.png", picture), "a (smgarn)", lambda *part: calls.append(part))
    assert found.tiles == len(calls) > 4 and calls[-1] == (found.tiles, found.tiles)
    difference = np.abs(found.after.astype(int) - restored("a.pt", picture))
    assert found.after.shape == picture.shape and difference.max() <= 1


def test_concurrent_requests_do_not_mix(service, place):
    jobs = [(save(place / f"{number}.png", veiled(photo(40 + number, 50, number))), name) for number in range(4)
            for name in service.weights]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: service.restore(*job), jobs))
    for (path, name), result in zip(jobs, found):
        assert np.array_equal(result.after, restored(f"{name[0]}.pt", image.read(path))), (path, name)


def test_few_networks_are_kept(service, place, monkeypatch):
    monkeypatch.setattr(serve, "KEPT", 1)
    path = save(place / "x.png", photo(40, 40, 1))
    for name in (*service.weights, *service.weights):
        service.restore(path, name)
        assert [key[0] for key in service.loaded] == [name]
    before = service.restore(path, "b (unet)").after
    make("unet", "b.pt", ["--channels", "8"])
    os.utime("b.pt", ns=(1, 1))
    assert not np.array_equal(before, service.restore(path, "b (unet)").after)
    Path("b.pt").unlink()
    with pytest.raises(UserError, match="These weights can no longer be read"):
        service.restore(path, "b (unet)")


@pytest.mark.parametrize("content, words", [
    (b"", "This file cannot be read as a photo: the file is empty."),
    (b"nonsense", "This file cannot be read as a photo: the image is damaged or of an unknown format."),
    ("cut", "This file cannot be read as a photo: the file is truncated."),
    ("large", "This photo has 0 million pixels"),
])
def test_a_bad_file_is_a_sentence_without_a_path(service, place, monkeypatch, content, words):
    path = save(place / "x.png", np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8))
    if content == "large":
        monkeypatch.setattr(serve, "MOST", 3599)
    else:
        path.write_bytes(path.read_bytes()[:3000] if content == "cut" else content)
    with pytest.raises(UserError) as error:
        service.restore(path, "a (smgarn)")
    assert str(error.value).startswith(words) and str(place) not in str(error.value)


def test_only_weights_of_the_list(service, place):
    with pytest.raises(UserError, match="one of the weights in the list"):
        service.restore(save(place / "x.png", photo(40, 40, 1)), "a.pt")


def test_weights_are_found(place, capsys):
    with pytest.raises(UserError, match="there are no model files experiment/"):
        serve.find([])
    for folder in ("experiment/mine/model", "zoo"):
        Path(folder).mkdir(parents=True)
    make("smgarn", "experiment/mine/model/model_best.pt")
    make("unet", "zoo/rain.pt")
    Path("zoo/bad.pt").write_bytes(b"nonsense")
    assert serve.find([]) == {"mine (smgarn)": Path("experiment/mine/model/model_best.pt"), "rain (unet)": Path("zoo/rain.pt")}
    assert "left out: zoo/bad.pt is damaged" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"zoo/bad\.pt is damaged"):
        serve.find(["zoo/bad.pt"])
    assert len(serve.find(["zoo/rain.pt", "./zoo/../zoo/rain.pt"])) == 2


def test_images_on_the_page_are_small_and_old_files_are_deleted(place, monkeypatch):
    monkeypatch.setattr(serve, "SHOWN", 64)
    assert serve.shown(photo(100, 200, 1)).shape == (32, 64, 3) and serve.shown(photo(60, 60, 1)).shape == (60, 60, 3)
    old, new = save(place / "t/a/old.png", photo(8, 8, 1)), save(place / "t/new.png", photo(8, 8, 1))
    os.utime(old, (1, 1))
    serve.delete_old(place / "t")
    assert not old.exists() and new.exists()


def test_without_gradio(place, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert guarded("tool.serve", lambda: serve.run([])) == 2
    assert capsys.readouterr().err == "tool.serve: error: the page needs the package gradio: pip install 'gradio>=6'\n"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((serve.HOST, 0))
        return listener.getsockname()[1]


class Browser:
    """Chromium, by the W3C's WebDriver protocol."""

    def __init__(self, place: Path):
        port = free_port()
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.base = f"http://{serve.HOST}:{port}"
        until(lambda: self.call("GET", "/status")["ready"])
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
                 f"--user-data-dir={place / 'profile'}", "--window-size=1300,900"]
        options = {"args": flags, "prefs": {"download.default_directory": str(place)}}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL"}}
        self.base += "/session/" + self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def call(self, verb: str, path: str, body: dict | None = None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=verb)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["value"]

    def find(self, selector: str) -> str:
        return until(lambda: self.call("POST", "/elements", {"using": "css selector", "value": selector}))[0][ELEMENT]

    def click(self, selector: str) -> None:
        self.call("POST", f"/element/{self.find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        self.call("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def script(self, code: str):
        return self.call("POST", "/execute/sync", {"script": f"return {code}", "args": []})

    def status(self, words: str) -> str:
        """Wait until the line below the buttons contains `words` (or is empty for no words); return the line."""
        text = "document.querySelector('#status')?.innerText ?? ''"
        until(lambda: words in self.script(text) if words else not self.script(text))
        return self.script(text)

    def requested(self) -> list[str]:
        """Return the addresses that the page requested since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.call("POST", "/se/log", {"type": "performance"})]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def end(self) -> None:
        try:
            self.call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait()


def until(ready):
    """Wait until `ready` returns a true value and return it; a refused connection counts as false."""
    def answered():
        try:
            return ready()
        except OSError:
            return None
    return conftest.until(answered)


@pytest.fixture
def address(place):
    """The address of a page served by another process; a SIGTERM ends it, and no temporary file remains."""
    if not importlib.util.find_spec("gradio"):
        pytest.skip("the extra 'serve' is not installed: no gradio")
    make("smgarn", "a.pt")
    make("unet", "b.pt")
    (place / "tmp").mkdir()
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(REPO), "TMPDIR": str(place / "tmp")}
    command = python("-m", "tool.serve", "--weights", "a.pt", "b.pt", "--port", port, "--cpu", "--whole", "0.01")
    with open("serve.txt", "w") as output:
        server = subprocess.Popen([*map(str, command)], stdout=output, stderr=output, env=environment)
    try:
        until(lambda: "Ctrl-C" in Path("serve.txt").read_text() or server.poll() is not None)
        assert server.poll() is None, Path("serve.txt").read_text()
        yield f"http://{serve.HOST}:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(PATIENCE)
    assert status == 0 and list((place / "tmp").glob("unweather-*")) == []
    assert "Traceback" not in Path("serve.txt").read_text()


def answer(address: str, path: str, body: dict | None = None) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as found:
            return found.status, found.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")


@pytest.mark.slow
def test_the_page_in_a_browser(address, place):
    for path in (place / "a.pt", "/etc/passwd"):          # a client cannot read files of this machine
        assert answer(address, f"/gradio_api/file={path}")[0] in (403, 404)
    if not (shutil.which("chromedriver") and (shutil.which("chromium") or shutil.which("chromium-browser"))):
        pytest.skip("there is no Chromium with its chromedriver")
    picture = veiled(photo(140, 200, 1))
    save(place / "snowy.png", picture)
    (place / "broken.jpg").write_bytes(b"nonsense")
    browser = Browser(place)
    try:
        browser.call("POST", "/url", {"url": address})
        browser.find("#restore")
        assert browser.script("document.title") == "Unweather"
        browser.type("#photo input[type=file]", str(place / "broken.jpg"))
        assert "This file cannot be read as a photo: the image is damaged" in browser.status("cannot")
        browser.click("#photo button[aria-label=Clear]")
        browser.status("")
        browser.type("#photo input[type=file]", str(place / "snowy.png"))
        browser.status("200 × 140 pixels.")
        browser.click("#restore")
        assert "200 × 140 pixels restored with a (smgarn) in " in browser.status("restored")
        assert until(lambda: browser.script("document.querySelectorAll('#slider img').length")) == 2
        until(lambda: browser.script("!document.querySelector('#download').disabled"))
        browser.click("#download")
        until((place / "snowy-restored.png").is_file)
        assert np.array_equal(image.read(place / "snowy-restored.png"), restored("a.pt", picture))
        if os.environ.get("UNWEATHER_SHOTS"):             # to inspect the page by eye
            Path(os.environ["UNWEATHER_SHOTS"], "page.png").write_bytes(base64.b64decode(browser.call("GET", "/screenshot")))
        foreign = [url for url in browser.requested() if not url.startswith((address, "data:", "blob:", "chrome:"))]
        assert foreign == []
    finally:
        browser.end()
