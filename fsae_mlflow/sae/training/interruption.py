"""Ctrl-C and SIGTERM that wait until a step has ended."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Interrupts:
    """The signals that came while they were deferred."""

    def __init__(self) -> None:
        self.former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.pending: list[tuple[int, FrameType | None]] = []

    def note(self, number: int, frame: FrameType | None) -> None:
        self.pending.append((number, frame))

    def act(self) -> NoReturn:
        """Let the first signal act (where another process got it, stop as if it had come to this one)."""
        number, frame = self.pending[0] if self.pending else (signal.SIGINT, None)
        self.pending.clear()
        handler = self.former[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        raise KeyboardInterrupt(signal.Signals(number).name)


@contextmanager
def deferred_interrupts() -> Iterator[Interrupts]:
    """Within the block SIGINT and SIGTERM are only recorded; `act` and the end of the block let them act.

    Raises (there): what the former handler raises, or KeyboardInterrupt where there was none.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    deferred = [number for number, handler in interrupts.former.items() if handler is not signal.SIG_IGN]
    for number in deferred:
        signal.signal(number, interrupts.note)
    try:
        yield interrupts
    finally:
        for number in deferred:
            signal.signal(number, interrupts.former[number])
    if interrupts.pending:
        interrupts.act()
