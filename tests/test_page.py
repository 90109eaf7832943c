"""Tests of the page of tool.serve over real sockets, and in a browser if Chromium is installed."""
import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from data import image
from restore import jobs, worker
from tests import browser
from tests.conftest import PATIENCE, REPO, photo, python, save, until, veiled
from tests.test_export import make
from tests.test_serve import EPS, free_port, huge, restored
from tool import guarded, page, serve


@pytest.fixture
def server(place):
    """A page in this process, with the weights 'a' and the further address photos.example:80."""
    make("smgarn", "a.pt")
    process = worker.Worker({"a": Path("a.pt").resolve()}, 10**6, True, PATIENCE)
    with page.Server(0, ["photos.example:80"], jobs.Jobs(process, place / "jobs")) as found:
        threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
        yield found
        found.shutdown()
        process.close()


def talk(server, text: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Send a request as it is, with {port} filled in; return the status, the headers and the body of the answer."""
    with socket.create_connection(server.server_address, PATIENCE) as line:
        line.sendall(text.replace("{port}", str(server.server_address[1])).replace("\n", "\r\n").encode() + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):        # the server refuses before everything is sent
            line.sendall(body)
        answer = b"".join(iter(lambda: line.recv(2**16), b""))
    head, _, content = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), content


def post(server, body: bytes, more: str = "", weights: str = "a", length: int | None = None) -> tuple[int, str]:
    """Upload a photo; return the status and the text of the answer."""
    length = len(body) if length is None else length
    request = f"POST /photos?weights={quote(weights)} HTTP/1.1\nHost: 127.0.0.1:{{port}}\nContent-Length: {length}{more}"
    status, _, content = talk(server, request, body)
    return status, content.decode().strip()


def get(server, path: str) -> tuple[int, dict[str, str], bytes]:
    return talk(server, f"GET {path} HTTP/1.1\nHost: 127.0.0.1:{{port}}")


def png(seed: int = 1) -> bytes:
    return save(Path("x.png"), veiled(photo(40, 50, seed))).read_bytes()


def test_a_photo_goes_through(server, place):
    status, headers, content = get(server, "/")
    assert status == 200 and b"<option>a</option>" in content and b"64</span> MB and 100 million pixels" in content and b"{{" not in content
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert get(server, "/serve.js")[0] == get(server, "/serve.css")[0] == 200
    status, text = post(server, png(), "\nOrigin: http://127.0.0.1:{port}\nSec-Fetch-Site: same-origin")
    assert status == 202, text
    key = json.loads(text)["key"]
    state = until(lambda: (found := json.loads(get(server, f"/photos/{key}")[2]))["state"] == "done" and found)
    assert state["text"].startswith("50 × 40 pixels restored with a in ")
    Path("y.png").write_bytes(get(server, f"/photos/{key}/restored.png")[2])
    assert np.array_equal(image.read("y.png"), restored("a.pt", veiled(photo(40, 50, 1))))
    assert get(server, f"/photos/{key}/before.png")[1]["Content-Type"] == "image/png"


@pytest.mark.parametrize("path", ["/photos", "/photos/", "/photos/x", "/photos/../a.pt", "/a.pt", "//etc/passwd", "/serve.py", "*",
                                  "/photos/x/photo", "/photos/%2e%2e/restored.png", "/photos/../restored.png", "/../tool/serve.py"])
def test_no_other_file_is_served(server, place, path):
    save(place / "jobs/restored.png", photo(8, 8, 1))
    assert get(server, path)[0] == 404


@pytest.mark.parametrize("host, allowed", [
    ("127.0.0.1:{port}", True), ("localhost:{port}", True), ("LOCALHOST:{port}", True), ("[::1]:{port}", True), ("photos.example:80", True),
    ("evil.example:{port}", False), ("127.0.0.1", False), ("localhost:1", False), ("127.0.0.1.evil.example:{port}", False), ("", False),
    ("localhost:{port}\nHost: evil.example", False), ("photos.example", False), ("0.0.0.0:{port}", False)])
def test_a_foreign_host_is_refused(server, host, allowed):
    """A page of another site whose name was made to point to this machine (DNS rebinding) has a foreign Host."""
    for path in ("/", "/photos/x"):
        status, _, text = talk(server, f"GET {path} HTTP/1.1\nHost: {host}")
        assert status == ((200 if path == "/" else 404) if allowed else 403), text
        assert allowed or b"This page is not served under the address" in text
    status, _, text = talk(server, f"POST /photos?weights=a HTTP/1.1\nHost: {host}\nContent-Length: 1", b"x")
    assert status == (422 if allowed else 403), text


@pytest.mark.parametrize("line, allowed", [
    ("Origin: http://127.0.0.1:{port}", True), ("Sec-Fetch-Site: same-origin", True), ("Sec-Fetch-Site: none", True),
    ("Origin: http://evil.example", False), ("Origin: null", False), ("Origin: http://localhost:{port}", False),
    ("Origin: http://127.0.0.1", False), ("Sec-Fetch-Site: cross-site", False), ("Sec-Fetch-Site: same-site", False),
    ("Origin: http://127.0.0.1:{port}\nSec-Fetch-Site: cross-site", False)])
def test_another_web_page_cannot_upload(server, line, allowed):
    status, text = post(server, b"x", f"\n{line}")
    assert status == (422 if allowed else 403)
    assert allowed or text == "Another web page sent this request; only the page of this server itself may do so."
    assert allowed or server.jobs.jobs == {}
    status, _, _ = talk(server, f"GET /photos/x HTTP/1.1\nHost: 127.0.0.1:{{port}}\n{line}")
    assert status == (404 if allowed else 403)


def test_another_web_page_can_link_to_this_one(server):
    assert talk(server, "GET / HTTP/1.1\nHost: 127.0.0.1:{port}\nSec-Fetch-Site: cross-site\nSec-Fetch-Mode: navigate")[0] == 200


@pytest.mark.parametrize("body, more, status, words", [
    (b"nonsense", {}, 422, "This file cannot be read as a photo: the image is damaged or of an unknown format."),
    (b"", {}, 422, "This file cannot be read as a photo: the file is empty."),
    (EPS, {}, 422, "This file cannot be read as a photo: the image is damaged or of an unknown format."),
    ("huge", {}, 422, "This photo has 196.0 million pixels; 100 million is the limit."),
    (b"x", {"length": 500 * 2**20}, 413, "This file has 500 MB; 64 MB is the limit."),
    (b"x", {"length": "nine"}, 411, "The request does not state the size of the photo (Content-Length)."),
    (b"x", {"length": -1}, 411, "The request does not state the size"), (b"x", {"length": "1" * 5000}, 411, "The request does not state"),
    (b"x", {"more": "\nTransfer-Encoding: chunked"}, 411, "The request does not state the size"),
    (b"x", {"weights": "../a.pt"}, 404, "Please choose one of the weights in the list."),
])
def test_a_bad_upload_is_a_sentence(server, monkeypatch, body, more, status, words):
    body = huge(14_000) if body == "huge" else body
    monkeypatch.setattr(image.Image.Image, "load", None)          # whatever decodes the file in this process fails
    found, text = post(server, body, **more)
    assert found == status and text.startswith(words)
    assert server.jobs.jobs == {} and not list((server.jobs.place).glob("*"))


@pytest.mark.parametrize("sent", ["body", "head", "nothing"])
def test_a_silent_client_is_cut_off(server, monkeypatch, sent):
    """The connection of a client that sends a part and then nothing is closed, and its place in the queue is free again."""
    monkeypatch.setattr(page.Handler, "timeout", 0.3)
    text = {"body": f"POST /photos?weights=a HTTP/1.1\r\nHost: 127.0.0.1:{server.server_address[1]}\r\nContent-Length: 99\r\n\r\nxx",
            "head": "POST /pho", "nothing": ""}[sent]
    with socket.create_connection(server.server_address, PATIENCE) as line:
        line.sendall(text.encode())
        answer = b"".join(iter(lambda: line.recv(2**16), b""))
    assert answer.startswith(b"HTTP/1.0 408") == (sent == "body")
    monkeypatch.setattr(page.Handler, "timeout", PATIENCE)
    assert server.jobs.jobs == {} and post(server, b"x")[0] == 422


def test_a_slow_client_is_cut_off(server, monkeypatch):
    """A client that sends a byte from time to time is cut off, too."""
    monkeypatch.setattr(page, "WHOLE", 0.5)
    head = f"POST /photos?weights=a HTTP/1.1\r\nHost: 127.0.0.1:{server.server_address[1]}\r\nContent-Length: 9999\r\n\r\n"
    with socket.create_connection(server.server_address, PATIENCE) as line, contextlib.suppress(ConnectionError):
        line.sendall(head.encode())
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            line.sendall(b"x")
            time.sleep(0.05)
        pytest.fail("the connection was not closed")
    until(lambda: server.jobs.jobs == {})


def test_many_connections_and_a_full_queue_are_refused(server, monkeypatch):
    monkeypatch.setattr(page.Handler, "timeout", PATIENCE)
    with contextlib.ExitStack() as stack:
        head = f"POST /photos?weights=a HTTP/1.1\r\nHost: 127.0.0.1:{server.server_address[1]}\r\nContent-Length: 9\r\n\r\n".encode()
        for _ in range(jobs.WAITING):
            stack.enter_context(socket.create_connection(server.server_address)).sendall(head)
        until(lambda: len(server.jobs.jobs) == jobs.WAITING)
        status, text = post(server, b"x")
        assert status == 503 and text == "8 photos are waiting already; please try again in a minute."
        for _ in range(page.CONNECTIONS - jobs.WAITING):
            stack.enter_context(socket.create_connection(server.server_address))
        assert b"Too many connections." in until(lambda: _refused(server))
    assert until(lambda: server.jobs.jobs == {}) and until(lambda: get(server, "/")[0] == 200)


def _refused(server) -> bytes:
    with contextlib.suppress(ConnectionError):
        status, _, content = get(server, "/")
        return content if status == 503 else b""
    return b""


def test_a_used_port(place, capsys):
    make("smgarn", "a.pt")
    with socket.socket() as other:
        other.bind((page.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        assert guarded("tool.serve", lambda: serve.run(["--weights", "a.pt", "--port", str(port), "--cpu"])) == 2
    assert capsys.readouterr().err == f"tool.serve: error: the port {port} is in use; choose another with --port\n"


@pytest.fixture
def address(place):
    """The address of a page served by another process; a SIGTERM ends it, and no temporary file remains."""
    make("smgarn", "a.pt")
    make("unet", "b.pt")
    (place / "tmp").mkdir()
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(REPO), "TMPDIR": str(place / "tmp")}
    command = python("-m", "tool.serve", "--weights", "a.pt", "b.pt", "--port", port, "--cpu", "--whole", "0.01")
    with open("serve.txt", "w") as output:
        program = subprocess.Popen([*map(str, command)], stdout=output, stderr=output, env=environment)
    try:
        until(lambda: "Ctrl-C" in Path("serve.txt").read_text() or program.poll() is not None)
        assert program.poll() is None, Path("serve.txt").read_text()
        yield f"http://{page.HOST}:{port}"
    finally:
        program.send_signal(signal.SIGTERM)
        status = program.wait(PATIENCE)
    assert status == 0 and list((place / "tmp").glob("unweather-*")) == []
    assert Path("serve.txt").read_text() == f"http://{page.HOST}:{port} — press Ctrl-C to end the server\n"


def test_the_server_ends_while_photos_wait(address, place):
    """SIGTERM (sent by the fixture) ends a server with a photo in work and others that wait at once, without a message."""
    body = save(place / "x.png", photo(2000, 2000, 1)).read_bytes()
    for _ in range(3):
        request = urllib.request.Request(f"{address}/photos?weights=a%20(smgarn)", body)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            assert answer.status == 202


def test_a_full_disk(server, monkeypatch):
    def receive(*_):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(page.Handler, "_receive", receive)
    assert post(server, b"x") == (507, "The disk of the server is full.") and server.jobs.jobs == {}


@pytest.mark.slow
def test_the_page_in_a_browser(address, place):
    if browser.missing():
        pytest.skip(f"not installed: {browser.missing()}")
    picture = veiled(photo(140, 200, 1))
    save(place / "snowy.png", picture)
    (place / "broken.jpg").write_bytes(b"nonsense")
    with browser.Browser(1300, 900) as window:
        window.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(place))
        window.call("POST", "/url", {"url": address})

        def choose(name: str) -> None:
            window.call("POST", f"/element/{window.find('#photo')}/value", {"text": str(place / name)})

        def status(words: str) -> str:
            return until(lambda: words in (text := window.js("return document.querySelector('#status').innerText")) and text)
        choose("broken.jpg")
        until(lambda: "cannot show this file" in window.js("return document.querySelector('#empty').innerText"))
        window.click("#restore")
        status("This file cannot be read as a photo: the image is damaged or of an unknown format.")
        assert "422" in "".join(window.complaints())      # the browser lists the refused upload
        choose("snowy.png")
        status("200 × 140 pixels.")
        shoot(window, "chosen")
        window.click("#restore")
        status("200 × 140 pixels restored with a (smgarn) in ")
        widths = "return ['before', 'after'].map((id) => document.getElementById(id).naturalWidth)"
        assert window.js(widths) == [200, 200] and window.js("return document.querySelector('#preview').hidden")
        window.drag("#cut", 0.5, 0.25)
        assert window.js("return parseFloat(document.querySelector('#slider').style.getPropertyValue('--cut'))") == pytest.approx(25, abs=4)
        shoot(window, "restored")
        window.click("#download")
        until((place / "snowy-restored.png").is_file)
        after = image.read(place / "snowy-restored.png").astype(int)
        assert np.abs(after - restored("a.pt", picture)).max() <= 1
        window.size(400, 800)
        assert window.js("return document.documentElement.scrollWidth") <= 400
        shoot(window, "narrow")
        loaded = window.js("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert [url for url in loaded if not url.startswith((address, "data:", "blob:"))] == [] and window.complaints() == []


def shoot(window: browser.Browser, name: str) -> None:
    """Save the page as an image in the folder $UNWEATHER_SHOTS, if it is set, to inspect it by eye."""
    if os.environ.get("UNWEATHER_SHOTS"):
        window.screenshot(Path(os.environ["UNWEATHER_SHOTS"], f"{name}.png"))
