"""Headless Chromium, controlled by chromedriver's protocol (W3C WebDriver) with the standard library."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

_ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--window-size=1200,800",
]


class Page:
    """A page in the browser."""

    def __init__(self, session: str) -> None:
        self._session = session

    def run(self, script: str, *arguments: Any) -> Any:
        """Runs JavaScript in the page; `return` gives its result."""
        return self._post("execute/sync", script=script, args=list(arguments))

    def run_async(self, script: str) -> Any:
        """Runs JavaScript in the page, which gives its result to `done`."""
        return self._post("execute/async", script=f"const done = arguments[0]; {script}", args=[])

    def until(self, script: str, tries: int = 1) -> None:
        """Waits until a JavaScript expression is true: two minutes for each try."""
        if tries > 1:
            with suppress(urllib.error.HTTPError):
                return self.until(script)
            return self.until(script, tries - 1)
        ask = "const done = arguments[0]; (function look() { (%s) ? done() : requestAnimationFrame(look); })();"
        self._post("execute/async", script=ask % script, args=[])
        return None

    def move_to(self, x: float, y: float) -> None:
        """Moves the mouse."""
        move = {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y), "origin": "viewport"}
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": [move]}
        self._post("actions", actions=[pointer])

    def press(self, selector: str, *keys: str) -> None:
        """Focuses an element and presses keys."""
        self._post(f"element/{self._element(selector)}/value", text="".join(keys))

    def drag(self, points: Sequence[tuple[float, float]]) -> None:
        """Drags the mouse along points of the visible part of the page."""
        moves: list[dict[str, Any]] = [
            {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y), "origin": "viewport"}
            for x, y in points
        ]
        moves.insert(1, {"type": "pointerDown", "button": 0})
        pointer = {
            "type": "pointer",
            "id": "mouse",
            "parameters": {"pointerType": "mouse"},
            "actions": [*moves, {"type": "pointerUp", "button": 0}],
        }
        self._post("actions", actions=[pointer])

    def resize(self, width: int, height: int, ratio: float = 1) -> None:
        """Gives the window another size, in CSS pixels, each of which is so many pixels of the screen wide."""
        self._cdp("Emulation.setDeviceMetricsOverride", **_metrics(width, height, ratio))

    def prefer(self, scheme: str) -> None:
        """Prefers `dark` or `light`, and no motion, so that no color is on its way to another."""
        wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        self._cdp("Emulation.setEmulatedMedia", features=features)

    def permit(self, name: str, state: str) -> None:
        """Answers what the browser would ask the user: `granted` or `denied`."""
        self._post("permissions", descriptor={"name": name}, state=state)

    def before_pages(self, script: str) -> None:
        """Runs JavaScript in every page that is opened from now on, before its own."""
        self._cdp("Page.addScriptToEvaluateOnNewDocument", source=script)

    def touch(self, *steps: Sequence[tuple[float, float]]) -> None:
        """Puts fingers on the visible part of the page, moves them, and lifts them: where each is at each step."""
        for number, points in enumerate(steps):
            fingers = [{"x": x, "y": y, "id": each} for each, (x, y) in enumerate(points)]
            self._cdp("Input.dispatchTouchEvent", type="touchMove" if number else "touchStart", touchPoints=fingers)
        self._cdp("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def click(self, selector: str) -> None:
        """Clicks an element, which must be visible."""
        self._post(f"element/{self._element(selector)}/click")

    def choose_files(self, selector: str, paths: Sequence[Path]) -> None:
        """Chooses files in an input."""
        self._post(f"element/{self._element(selector)}/value", text="\n".join(map(str, paths)))

    @contextmanager
    def second_window(self, url: str) -> Iterator[None]:
        """Opens an address in a second window, to which everything goes until the block ends."""
        first = _call(f"{self._session}/window", None)
        self._post("window", handle=self._post("window/new", type="window")["handle"])
        try:
            self.visit(url)
            yield
        finally:
            _call(f"{self._session}/window", None, "DELETE")
            self._post("window", handle=first)

    def screenshot(self) -> bytes:
        """A PNG of the visible part of the page."""
        return base64.b64decode(_call(f"{self._session}/screenshot", None))

    def errors(self) -> list[str]:
        """The errors since the last call: those of scripts, and requests that the browser blocked."""
        return [entry["message"] for entry in self._post("se/log", type="browser") if entry["level"] == "SEVERE"]

    def open(self, path: Path) -> None:
        """Opens a file."""
        self.visit(path.as_uri())

    def visit(self, url: str) -> None:
        """Opens an address."""
        self._post("url", url=url)

    def _element(self, selector: str) -> str:
        (identifier,) = self._post("element", using="css selector", value=selector).values()
        return str(identifier)

    def _cdp(self, command: str, **parameters: Any) -> None:
        self._post("goog/cdp/execute", cmd=command, params=parameters)

    def _post(self, command: str, **values: Any) -> Any:
        return _call(f"{self._session}/{command}", values)


def _metrics(width: int, height: int, ratio: float) -> dict[str, Any]:
    return {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": width < 600}


@contextmanager
def chromium(*flags: str, offline: bool = True) -> Iterator[Page]:
    """A headless Chromium without network. Skips the test without Debian's chromium and chromium-driver.

    Args:
        flags: Further flags of the command line.
        offline: Whether no host is reached.
    """
    driver, browser = shutil.which("chromedriver"), shutil.which("chromium")
    if not driver or not browser:
        pytest.skip("no chromium and chromedriver: apt-get install --no-install-recommends chromium chromium-driver")
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = next(
            line.rstrip().rstrip(".").rpartition(" ")[2] for line in process.stdout if "successfully on port" in line
        )
        arguments = [*_ARGUMENTS, *flags, *(["--proxy-server=127.0.0.1:9"] if offline else [])]
        wanted = {
            "goog:chromeOptions": {"binary": browser, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": 120_000},
        }
        root = f"http://127.0.0.1:{port}/session"
        session = f"{root}/{_call(root, {'capabilities': {'alwaysMatch': wanted}})['sessionId']}"
        try:
            yield Page(session)
        finally:
            urllib.request.urlopen(urllib.request.Request(session, method="DELETE"), timeout=30).close()
    finally:
        process.kill()
        process.communicate()


def _call(url: str, values: dict[str, Any] | None, method: str | None = None) -> Any:
    data = None if values is None else json.dumps(values).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=150) as reply:
        return json.load(reply)["value"]
