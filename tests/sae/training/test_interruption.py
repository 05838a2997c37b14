"""Signals that wait: in a thread, ignored, at the end of the block, and of another process."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from fsae_mlflow.sae.training.interruption import deferred_interrupts


def test_a_thread_leaves_signals_alone() -> None:
    def handler() -> object:
        with deferred_interrupts() as interrupts:
            assert interrupts.pending == []
            return signal.getsignal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(handler).result() is before


def test_an_ignored_signal_stays_ignored() -> None:
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with deferred_interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupts.pending == []
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, former)


def test_a_signal_acts_once_at_the_end_of_the_block() -> None:
    came: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"), deferred_interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGTERM)
            assert came == []
        assert came == [signal.SIGTERM] and interrupts.pending == []
    finally:
        signal.signal(signal.SIGTERM, former)


def test_a_signal_of_another_process_stops_this_one_too() -> None:
    former = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with deferred_interrupts() as interrupts, pytest.raises(KeyboardInterrupt, match="SIGINT"):
            interrupts.act()
    finally:
        signal.signal(signal.SIGINT, former)
