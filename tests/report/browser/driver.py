"""Headless Chromium, driven over WebDriver's HTTP protocol (https://www.w3.org/TR/webdriver2/)."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.servers import free_port, until_answered

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--allow-file-access-from-files",
)


def missing() -> str:
    """Which program is not installed; empty if none."""
    names = {"chromium": "Chromium", "chromedriver": "ChromeDriver"}
    return " and ".join(name for program, name in names.items() if shutil.which(program) is None)


class Chromium:
    """A window of a browser."""

    def __init__(self, session: str) -> None:
        self.session = session

    def open(self, address: str) -> None:
        self.command("url", url=address)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a script returns in the page."""
        return self.command("execute/sync", script=script, args=list(arguments))

    def until(self, script: str, *arguments: Any, seconds: float = 20.0) -> Any:
        """The first value of a script that is true."""
        end = time.monotonic() + seconds
        while True:
            value = self.run(script, *arguments)
            if value:
                return value
            assert time.monotonic() < end, f"not true in {seconds} seconds: {script}"
            time.sleep(0.1)

    def resize(self, width: int, height: int) -> None:
        self.command("window/rect", width=width, height=height)

    def dark(self, dark: bool) -> None:
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("goog/cdp/execute", cmd="Emulation.setEmulatedMedia", params={"features": [feature]})

    def keys(self, key: str) -> None:
        """Press a key: ArrowLeft, ArrowRight or Escape."""
        codes = {"ArrowLeft": "\ue012", "ArrowRight": "\ue014", "Escape": "\ue00c"}
        actions = [{"type": kind, "value": codes[key]} for kind in ("keyDown", "keyUp")]
        self.command("actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def enter_frame(self, css: str) -> None:
        """Go on inside a frame."""
        element = self.command("element", using="css selector", value=css)
        self.command("frame", id=element)

    def complaints(self) -> list[str]:
        """What the console has said since it was last asked, at the level of errors."""
        return [one["message"] for one in self.command("se/log", type="browser") if one["level"] == "SEVERE"]

    def command(self, name: str, **values: Any) -> Any:
        answer = requests.post(f"{self.session}/{name}", json=values, timeout=60).json()["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer


@contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    """Start a browser; it ends with the block."""
    port = free_port()
    server = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        until_answered(f"{address}/status")
        options = {"args": [*ARGUMENTS, f"--user-data-dir={profile}"], "binary": shutil.which("chromium")}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        capabilities = {"capabilities": {"alwaysMatch": wanted}}
        started = requests.post(f"{address}/session", json=capabilities, timeout=60).json()["value"]
        session = f"{address}/session/{started['sessionId']}"
        yield Chromium(session)
        requests.delete(session, timeout=30)
    finally:
        server.terminate()
        server.wait(timeout=30)
