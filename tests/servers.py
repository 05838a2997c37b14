"""Servers that tests start: a free port, and waiting until there is an answer."""

import socket
import time
import urllib.request


def free_port() -> int:
    """A port of this machine that no server has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def until_answered(address: str, *, seconds: float = 60.0) -> None:
    """Wait until a server answers at `address`."""
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except OSError:
            assert time.monotonic() < end, f"no server answers at {address}"
            time.sleep(0.1)
