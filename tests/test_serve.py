"""The page: what it computes, without Gradio; then all of it in a browser, where there are Gradio and Chromium."""
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
def desk(place) -> serve.Desk:
    make("smgarn", "a.pt")
    make("unet", "b.pt")
    return serve.Desk(serve.find(["a.pt", "b.pt"]), whole=200 * 200)


def restored(path: str, picture: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return image.to_array(weights.load(path).restore(image.to_tensor(picture)[None])[0])


def test_a_photo_is_restored_whole(desk, place):
    picture = veiled(photo(50, 70, 1))
    found = desk.restore(save(place / "x.png", picture), "a (smgarn)")
    assert np.array_equal(found.before, picture) and found.tiles == 1
    assert np.array_equal(found.after, restored("a.pt", picture))


def test_a_large_photo_is_restored_in_tiles(desk, place, monkeypatch):
    monkeypatch.setattr(serve, "TILE", 128)
    picture, heard = veiled(photo(210, 300, 1)), []
    found = desk.restore(save(place / "x.png", picture), "a (smgarn)", lambda *part: heard.append(part))
    assert found.tiles == len(heard) > 4 and heard[-1] == (found.tiles, found.tiles)
    difference = np.abs(found.after.astype(int) - restored("a.pt", picture))
    assert found.after.shape == picture.shape and difference.max() <= 1


def test_two_at_once_do_not_mix(desk, place):
    jobs = [(save(place / f"{number}.png", veiled(photo(40 + number, 50, number))), name) for number in range(4) for name in desk.weights]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: desk.restore(*job), jobs))
    for (path, name), result in zip(jobs, found):
        assert np.array_equal(result.after, restored(f"{name[0]}.pt", image.read(path))), (path, name)


def test_few_networks_are_kept(desk, place, monkeypatch):
    monkeypatch.setattr(serve, "KEPT", 1)
    path = save(place / "x.png", photo(40, 40, 1))
    for name in (*desk.weights, *desk.weights):
        desk.restore(path, name)
        assert [key[0] for key in desk.loaded] == [name]
    before = desk.restore(path, "b (unet)").after
    make("unet", "b.pt", ["--channels", "8"])
    os.utime("b.pt", ns=(1, 1))
    assert not np.array_equal(before, desk.restore(path, "b (unet)").after)
    Path("b.pt").unlink()
    with pytest.raises(UserError, match="These weights cannot be read any more"):
        desk.restore(path, "b (unet)")


@pytest.mark.parametrize("content, words", [
    (b"", "This file cannot be read as a photo: the file is empty."),
    (b"nonsense", "This file cannot be read as a photo: the image is damaged or of an unknown format."),
    ("cut", "This file cannot be read as a photo: the file is truncated."),
    ("large", "This photo has 0 million pixels"),
])
def test_a_bad_file_is_a_sentence_without_a_path(desk, place, monkeypatch, content, words):
    path = save(place / "x.png", np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8))
    if content == "large":
        monkeypatch.setattr(serve, "MOST", 3599)
    else:
        path.write_bytes(path.read_bytes()[:3000] if content == "cut" else content)
    with pytest.raises(UserError) as error:
        desk.restore(path, "a (smgarn)")
    assert str(error.value).startswith(words) and str(place) not in str(error.value)


def test_only_weights_of_the_list(desk, place):
    with pytest.raises(UserError, match="one of the weights in the list"):
        desk.restore(save(place / "x.png", photo(40, 40, 1)), "a.pt")


def test_weights_are_found(place, capsys):
    with pytest.raises(UserError, match="there are no weights in experiment/"):
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


def test_pictures_for_the_page_are_small_and_old_files_go(place, monkeypatch):
    monkeypatch.setattr(serve, "SHOWN", 64)
    assert serve.shown(photo(100, 200, 1)).shape == (32, 64, 3) and serve.shown(photo(60, 60, 1)).shape == (60, 60, 3)
    old, new = save(place / "t/a/old.png", photo(8, 8, 1)), save(place / "t/new.png", photo(8, 8, 1))
    os.utime(old, (1, 1))
    serve.tidy(place / "t")
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
        """Return the line below the buttons as soon as those words are in it, or it is empty for no words."""
        text = "document.querySelector('#status')?.innerText ?? ''"
        until(lambda: words in self.script(text) if words else not self.script(text))
        return self.script(text)

    def requested(self) -> list[str]:
        """Return the addresses of what was asked for over the net since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.call("POST", "/se/log", {"type": "performance"})]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def end(self) -> None:
        try:
            self.call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait()


def until(ready):
    """Return what `ready` returns as soon as that is true; a refused connection counts as false."""
    def answered():
        try:
            return ready()
        except OSError:
            return None
    return conftest.until(answered)


@pytest.fixture
def address(place):
    """The address of a page served by a process of its own, which a SIGTERM ends and leaves nothing behind."""
    if not importlib.util.find_spec("gradio"):
        pytest.skip("the extra 'serve' is not installed: no gradio")
    make("smgarn", "a.pt")
    make("unet", "b.pt")
    (place / "tmp").mkdir()
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(REPO), "TMPDIR": str(place / "tmp")}
    command = python("-m", "tool.serve", "--weights", "a.pt", "b.pt", "--port", port, "--cpu", "--whole", "0.01")
    with open("serve.txt", "w") as said:
        server = subprocess.Popen([*map(str, command)], stdout=said, stderr=said, env=environment)
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
    for path in (place / "a.pt", "/etc/passwd"):          # a client names no file of this machine
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
        if os.environ.get("UNWEATHER_SHOTS"):             # to look at
            Path(os.environ["UNWEATHER_SHOTS"], "page.png").write_bytes(base64.b64decode(browser.call("GET", "/screenshot")))
        foreign = [url for url in browser.requested() if not url.startswith((address, "data:", "blob:", "chrome:"))]
        assert foreign == []
    finally:
        browser.end()
