"""The HTTP side of tool.serve: answers only the browsers of this machine that opened the page itself, within limits of size and time."""
import contextlib
import errno
import html
import json
import re
import shutil
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from urllib.parse import parse_qs, urlsplit

from data import image
from restore.jobs import WAITING, Full, Jobs
from restore.worker import AFTER, BEFORE, MOST, RESTORED, check, minutes
from runtime.errors import UserError

HOST = "127.0.0.1"
MOST_BYTES = 64 * 2**20                   # largest upload
CONNECTIONS = 32                          # connections that are answered at one time
SILENCE, WHOLE = 10.0, 300.0              # seconds after which a silent connection and any connection is closed
BLOCK = 2**16
HERE = Path(__file__).parent
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
                               "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store", "Connection": "close",
}
PHOTO = re.compile(rf"/photos/([\w-]+)(?:/({BEFORE}|{AFTER}|{RESTORED}))?", re.ASCII)
FIXED = {"/serve.js": "text/javascript; charset=utf-8", "/serve.css": "text/css; charset=utf-8"}


class Server(ThreadingTCPServer):
    """Serves the page at 127.0.0.1:port, for this Host, localhost and [::1] and for the further `addresses` NAME:PORT; OSError if the
    port is in use."""

    daemon_threads, request_queue_size = True, 2 * CONNECTIONS
    allow_reuse_address = hasattr(socket, "AF_UNIX")      # on Windows this would let two servers share a port

    def __init__(self, port: int, addresses: list[str], jobs: Jobs):
        super().__init__((HOST, port), Handler)
        self.jobs, self.slots = jobs, threading.Semaphore(CONNECTIONS)
        port = self.server_address[1]
        own = [f"{name}:{port}" for name in (HOST, "localhost", "[::1]")] + [HOST, "localhost", "[::1]"] * (port == 80)
        self.addresses = {*own, *addresses}

    def process_request(self, request, client_address) -> None:
        """Answer a connection in a thread, or at once with 503 if there are too many."""
        if self.slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            with contextlib.suppress(OSError):
                request.settimeout(1)
                request.sendall(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n\r\nToo many connections.\n")
            self.shutdown_request(request)

    def process_request_thread(self, request, client_address) -> None:
        """Answer a connection; it is closed after WHOLE seconds, whatever it does."""
        timer = threading.Timer(WHOLE, _cut, (request,))
        timer.daemon = True
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self.slots.release()

    def handle_error(self, request, client_address) -> None:
        """Print an error in one line; OSError is not one, since the browser closed the connection or was too slow."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            print(f"tool.serve: a request failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


def _cut(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    """One request: GET of the page, of a job's state or of its images, or POST of a photo."""

    server: Server
    timeout = SILENCE
    server_version, sys_version = "Unweather", ""

    def do_GET(self) -> None:
        """Answer with the page or a fixed file, or with a job's state or image."""
        path = urlsplit(self.path).path
        if not self._trusted(path):
            return None
        if path == "/":
            return self._send(200, self._page().encode(), "text/html; charset=utf-8")
        if path in FIXED:
            return self._send(200, (HERE / path[1:]).read_bytes(), FIXED[path])
        found = PHOTO.fullmatch(path)
        if not found:
            return self._refuse(404, "There is no such page.")
        key, name = found.groups()
        state = self.server.jobs.state(key)
        if state and not name:
            return self._send(200, json.dumps(state).encode(), "application/json")
        with contextlib.suppress(FileNotFoundError):      # it may be deleted in this moment
            if state and state["state"] == "done":
                return self._send_file(self.server.jobs.place / key / name)
        return self._refuse(404, "This photo is no longer on the server: it was deleted, or the server was started anew.")

    def do_POST(self) -> None:
        """Take a photo, as the body, to be restored with ?weights=NAME, and answer with the key of its job."""
        address = urlsplit(self.path)
        if not self._trusted(address.path):
            return None
        names = parse_qs(address.query).get("weights", [""])
        if address.path != "/photos" or names[0] not in self.server.jobs.worker.weights:
            return self._refuse(404, "Please choose one of the weights in the list.")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or "Transfer-Encoding" in self.headers or len(length) > 18:
            return self._refuse(411, "The request does not state the size of the photo (Content-Length).")
        if int(length) > MOST_BYTES:
            return self._refuse(413, f"This file has {int(length) / 2**20:.0f} MB; {MOST_BYTES // 2**20} MB is the limit.")
        try:
            with self.server.jobs.arriving() as (key, job):
                self._receive(job.photo, int(length))
                check(job.photo)
                job.name = names[0]
        except Full:
            return self._refuse(503, f"{WAITING} photos are waiting already; please try again in a minute.", {"Retry-After": "60"})
        except UserError as error:
            return self._refuse(422, str(error))
        except TimeoutError:
            return self._refuse(408, f"The upload was cut off: nothing arrived for {SILENCE:.0f} seconds.")
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return self._refuse(507, "The disk of the server is full.")
        return self._send(202, json.dumps({"key": key}).encode(), "application/json")

    def _trusted(self, path: str) -> bool:
        """Return whether the request is for this page and comes from it, else refuse it.

        A foreign Host means that another site's name points to this machine (DNS rebinding). A foreign Origin, or a request
        that the browser calls cross-site, means that another site's page sends it; such a page may only link to the page itself.
        """
        host = (self.headers.get_all("Host") or [""])
        if len(host) != 1 or host[0].lower() not in self.server.addresses:
            self._refuse(403, f"This page is not served under the address '{host[0][:100]}'; open http://{HOST}:"
                              f"{self.server.server_address[1]}, or start the server with --address {host[0][:100] or 'NAME:PORT'}.")
            return False
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site", "none")
        foreign = origin is not None and origin.lower() not in (f"http://{host[0].lower()}", f"https://{host[0].lower()}")
        if foreign or (site not in ("same-origin", "none") and (self.command == "POST" or path != "/")):
            self._refuse(403, "Another web page sent this request; only the page of this server itself may do so.")
            return False
        return True

    def _receive(self, path: Path, length: int) -> None:
        """Write the body to a file; TimeoutError if nothing arrives for SILENCE seconds or the connection ends."""
        with open(path, "wb") as file:
            while length:
                block = self.rfile.read1(min(BLOCK, length))
                if not block:
                    raise TimeoutError
                file.write(block)
                length -= len(block)

    def _page(self) -> str:
        jobs = self.server.jobs
        options = "".join(f"<option>{html.escape(name)}</option>" for name in jobs.worker.weights)
        filled = {"options": options, "endings": ",".join(sorted(image.EXTENSIONS)), "megabytes": str(MOST_BYTES // 2**20),
                  "megapixels": f"{MOST / 1e6:.0f}", "limit": minutes(jobs.worker.seconds)}
        text = (HERE / "serve.html").read_text(encoding="utf-8")
        for name, value in filled.items():
            text = text.replace(f"{{{{{name}}}}}", value)
        return text

    def _send(self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self._start(status, len(body), kind, more)
        self.wfile.write(body)

    def _send_file(self, path: Path) -> None:
        with open(path, "rb") as file:
            self._start(200, path.stat().st_size, "image/png")
            shutil.copyfileobj(file, self.wfile, BLOCK)

    def _start(self, status: int, length: int, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(length), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def _refuse(self, status: int, text: str, more: dict[str, str] | None = None) -> None:
        """Answer with a sentence. What the client still sends is read for a moment, because closing at once would lose the answer."""
        self._send(status, f"{text}\n".encode(), "text/plain; charset=utf-8", more)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1)
            end = time.monotonic() + SILENCE
            while time.monotonic() < end and self.rfile.read1(BLOCK):
                pass

    def log_message(self, *_) -> None:
        """Print nothing for a request."""
