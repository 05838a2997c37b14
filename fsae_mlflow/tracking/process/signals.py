"""SIGTERM ends a run in the same way as Ctrl-C: as a KeyboardInterrupt."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
SECONDS_TO_ASK_AGAIN = 0.05


class Terminated(KeyboardInterrupt):
    """Raised when SIGTERM arrives."""


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM raise Terminated within the block; the former handlers return after it."""

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated("SIGTERM")

    def ask_again(ignored: "sys.UnraisableHookArgs") -> None:
        # Python drops an exception raised in a destructor or a weak reference's callback, and calls this hook.
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
    """Ignore further signals during the clean-up: after Ctrl-C, `mlflow run` sends SIGTERM to its child."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def reason_of(interrupt: KeyboardInterrupt) -> str:
    """What ended the run, in words."""
    return "stopped by SIGTERM" if isinstance(interrupt, Terminated) else "interrupted (Ctrl-C)"


def interrupt_behind(error: BaseException) -> KeyboardInterrupt | None:
    """The interrupt that `error` is, or that was being handled when it rose: a failing last save is not the reason."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__  # pyright: ignore[reportAssignmentType]
    return error
