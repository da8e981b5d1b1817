"""A headless Chromium for tests, driven over WebDriver, which is JSON over HTTP: the standard library suffices."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that WebDriver gives elements under
KEYS = {"left": "\ue012", "up": "\ue013", "right": "\ue014", "down": "\ue015", "end": "\ue010", "home": "\ue011"} | {
    "tab": "\ue004",
    "enter": "\ue007",
    "escape": "\ue00c",
    "space": " ",
}


class Browser:
    """One window."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"
        # No sandbox: tests in containers run as root, where Chromium has none.
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        wanted = {
            "goog:chromeOptions": {"binary": CHROMIUM, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        self.session = ""
        self.session = "/session/" + self.ask("/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def ask(self, path: str, content: dict[str, Any] | None = None, method: str = "POST") -> Any:
        """One command, and what it gives."""
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.root + self.session + path, body, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.loads(error.read())["value"]["message"]) from None

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of Chromium's own protocol."""
        return self.ask("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, path: Path, width: int = 1400, height: int = 900, scheme: str = "light") -> None:
        """A file, in a viewport of a size, for a reader who prefers a colour scheme."""
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.errors()
        self.ask("/url", {"url": path.absolute().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of a function gives in the page."""
        return self.ask("/execute/sync", {"script": script, "args": list(arguments)})

    def press(self, *keys: str) -> None:
        """Keys, one after another, on what has the focus."""
        strokes = [KEYS.get(key, key) for key in keys]
        actions = [{"type": kind, "value": key} for key in strokes for kind in ("keyDown", "keyUp")]
        self.ask("/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def errors(self) -> list[str]:
        """Errors on the console since it was last asked."""
        entries = self.ask("/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def picture(self, path: Path, whole: bool = True) -> None:
        """The page as a PNG, all of it or what the viewport shows."""
        found = self.cdp(
            "Page.captureScreenshot", captureBeyondViewport=whole, **({"clip": self._all()} if whole else {})
        )
        path.write_bytes(base64.b64decode(found["data"]))

    def _all(self) -> dict[str, float]:
        size = self.cdp("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser, closed at the end."""
    assert DRIVER is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        opened = Browser(port)
        try:
            yield opened
        finally:
            opened.ask("", method="DELETE")
    finally:
        driver.terminate()
        driver.wait()
