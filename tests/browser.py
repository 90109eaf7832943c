"""A headless Chromium by the WebDriver protocol over plain HTTP."""
import base64
import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

from tests.conftest import PATIENCE

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"        # the protocol's key of an element
KEYS = {"Left": "\ue012", "Right": "\ue014", "Escape": "\ue00c", "Enter": "\ue007"}


def missing() -> str:
    """Return what is missing for a browser, '' where all is there."""
    found = shutil.which("chromedriver") and (shutil.which("chromium") or shutil.which("google-chrome"))
    return "" if found else "chromium and chromedriver"


class Browser:
    """One window; use it as a context. `dark`: the system prefers dark pages."""

    def __init__(self, width: int = 1280, height: int = 900, dark: bool = False):
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        binary = shutil.which("chromium") or shutil.which("google-chrome")
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.driver.stdout:
            if "started successfully on port" in line:
                self.root = f"http://127.0.0.1:{line.split()[-1].rstrip('.')}/session"
                break
        options = {"browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"},
                   "goog:chromeOptions": {"args": flags, "binary": binary}}
        session = self.call("POST", "", {"capabilities": {"alwaysMatch": options}}, self.root)
        self.base = f"{self.root}/{session['sessionId']}"
        self.size(width, height)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(PATIENCE)

    def call(self, method: str, path: str, body: dict | None = None, base: str = ""):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request((base or self.base) + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=PATIENCE) as answer:
            return json.load(answer)["value"]

    def devtools(self, command: str, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def size(self, width: int, height: int) -> None:
        """Give the page's area exactly this size, as narrow as a phone's if need be."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, path: Path) -> None:
        self.call("POST", "/url", {"url": path.resolve().as_uri()})

    def js(self, code: str, *arguments):
        """Run `code` in the page and return what it returns."""
        return self.call("POST", "/execute/sync", {"script": code, "args": list(arguments)})

    def find(self, selector: str) -> str:
        return self.call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector: str) -> None:
        self.call("POST", f"/element/{self.find(selector)}/click", {})

    def press(self, *keys: str) -> None:
        """Press keys by their names or letters."""
        steps = [step for key in keys for kind in ("keyDown", "keyUp") for step in [{"type": kind, "value": KEYS.get(key, key)}]]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": steps}]})

    def drag(self, selector: str, start: float, end: float, kind: str = "mouse") -> None:
        """Drag across an element with a mouse or a finger ('touch'), from one share of its width to another."""
        self.js("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        box = self.js("const b = document.querySelector(arguments[0]).getBoundingClientRect();"
                      "return [b.x, b.y, b.width, b.height]", selector)
        xs = [round(box[0] + share * box[2]) for share in (start, (start + end) / 2, end)]
        y = round(box[1] + box[3] / 2)
        moves = [{"type": "pointerMove", "x": x, "y": y, "duration": 20} for x in xs]
        steps = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
        self.call("POST", "/actions", {"actions": [{"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": steps}]})

    def pinch(self, selector: str, start: float, end: float) -> None:
        """Move two fingers apart on an element: from so far left and right of its centre to so far, as shares of its width."""
        box = self.js("const b = document.querySelector(arguments[0]).getBoundingClientRect();"
                      "return [b.x, b.y, b.width, b.height]", selector)
        fingers = []
        for side in (-1, 1):
            xs = [round(box[0] + box[2] * (0.5 + side * share)) for share in (start, (start + end) / 2, end)]
            moves = [{"type": "pointerMove", "x": x, "y": round(box[1] + box[3] / 2), "duration": 20} for x in xs]
            steps = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
            fingers.append({"type": "pointer", "id": f"finger{side}", "parameters": {"pointerType": "touch"}, "actions": steps})
        self.call("POST", "/actions", {"actions": fingers})

    def complaints(self) -> list[str]:
        """Return the console's warnings and errors since the last call."""
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"}) if entry["level"] in ("WARNING", "SEVERE")]

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Save the page, the `whole` of it or what is in view, as PNG."""
        picture = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(picture["data"]))
