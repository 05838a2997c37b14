"""Ctrl-C and SIGTERM end a run in the same way: as an exception that unwinds whatever is under way."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
SECONDS_TO_ASK_AGAIN = 0.05


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised as Ctrl-C is."""


@contextmanager
def terminable() -> Iterator[None]:
    """Within the block SIGTERM raises Terminated; after it the former handlers are back."""

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated("SIGTERM")

    def ask_again(ignored: "sys.UnraisableHookArgs") -> None:
        # What is raised inside a destructor or a weak reference's callback Python reports here and drops.
        if issubclass(ignored.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, SECONDS_TO_ASK_AGAIN)
        else:
            former_hook(ignored)

    former = {number: signal.getsignal(number) for number in SIGNALS}
    former_hook = sys.unraisablehook
    sys.unraisablehook = ask_again
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, terminate)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = former_hook
        for number, handler in former.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """Let nothing cut the clean-up short: `mlflow run` answers Ctrl-C with a SIGTERM of its own."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def reason_of(interrupt: KeyboardInterrupt) -> str:
    """What ended the run, for a reader."""
    return "stopped by SIGTERM" if isinstance(interrupt, Terminated) else "interrupted (Ctrl-C)"
