"""Ctrl-C and SIGTERM that wait for a step to end."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Within the block SIGINT and SIGTERM are only noted; the function it gives, and the block's end, let them act.

    Raises (from there): what the former handler raises, or KeyboardInterrupt where there was none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    pending: list[tuple[int, FrameType | None]] = []
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    deferred = [number for number, handler in former.items() if handler is not signal.SIG_IGN]

    def act() -> None:
        if not pending:
            return
        number, frame = pending[0]
        pending.clear()
        handler = former[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in deferred:
        signal.signal(number, lambda number, frame: pending.append((number, frame)))
    try:
        yield act
    finally:
        for number in deferred:
            signal.signal(number, former[number])
    act()
