"""A real browser without a window, spoken to over a pipe (Chrome DevTools Protocol): what a page asks for, says and looks like.

One process serves all pages of a test session. `Seen.requests` holds every address that the page asked for, whether an
answer came or not, the page's own file included.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

DEADLINE_S = 60.0
# Requests of the browser itself, to its maker, are off: what is left is what pages ask for.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-pipe",
)


@dataclass(slots=True)
class Seen:
    """What one page did and looks like at one width."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    width: int = 0
    content_width: int = 0
    content_height: int = 0
    screenshot: bytes = b""


class Browser:
    """Chromium with an empty profile in `folder`; ends with the `with` block."""

    def __init__(self, folder: Path) -> None:
        command = shutil.which("chromium")
        assert command is not None, "no chromium; as root: python -m tests.pages.packages"
        to_child, self._to = os.pipe()
        self._from, from_child = os.pipe()
        # Chromium reads commands from descriptor 3 and writes to 4; the shell puts ours there.
        script = f'exec "$@" 3<&{to_child} 4>&{from_child}'
        words = ["bash", "-c", script, "bash", command, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            words, pass_fds=(to_child, from_child), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_child)
        os.close(from_child)
        self._buffer, self._number = b"", 0
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            self._session = None
            self.ask("Browser.close")
            self._process.wait(timeout=20)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._to)
            os.close(self._from)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and returns its result; events that come before it are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + DEADLINE_S
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def open(self, path: Path, *, width: int = 1280, height: int = 900) -> Seen:
        """Loads the file in a fresh tab of that width, waits until it is quiet, and returns what happened."""
        self._session = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable")
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._events.clear()
        self.ask("Page.navigate", url=path.as_uri())
        self._wait_for("Page.loadEventFired")
        # Two frames: what is asked for while the page is laid out has been asked for then.
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")
        seen = Seen()
        root = "document.documentElement"
        seen.width, seen.content_width, seen.content_height = self.evaluate(
            f"[{root}.clientWidth, {root}.scrollWidth, {root}.scrollHeight]"
        )
        seen.screenshot = base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])
        for event in self._events:
            _note(seen, event)
        return seen

    def evaluate(self, expression: str) -> Any:
        """Returns the value of a script in the open page, which itself may have none."""
        done = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def screenshot(self, height: int, *, width: int, y: int = 0) -> bytes:
        """Returns a PNG of a part of the open page."""
        clip = {"x": 0, "y": y, "width": width, "height": height, "scale": 1}
        return base64.b64decode(
            self.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
        )

    def pdf(self) -> bytes:
        """Returns the open page as it is printed, in the size that its style asks for."""
        printed = self.ask("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        return base64.b64decode(printed["data"])

    def _wait_for(self, method: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while all(event.get("method") != method for event in self._events):
            self._events.append(self._next(deadline))

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"chromium did not answer in {DEADLINE_S:.0f} s"
            part = os.read(self._from, 1 << 20)
            assert part, f"chromium ended: {self._process.poll()}"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        value: dict[str, Any] = json.loads(text)
        return value


def _note(seen: Seen, event: dict[str, Any]) -> None:
    """Adds a request or a complaint."""
    method, values = event.get("method"), event.get("params", {})
    if method == "Network.requestWillBeSent":
        seen.requests.append(values["request"]["url"])
    elif method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
        seen.complaints.append(values["entry"]["text"])
    elif method == "Runtime.consoleAPICalled":
        seen.complaints.append(f"console.{values['type']}")
    elif method == "Runtime.exceptionThrown":
        seen.complaints.append(values["exceptionDetails"]["text"])
