"""Progress of long work: a bar on a terminal, plain lines in a log, each with rate and time left."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
OnMetrics = Callable[[dict[str, float], int], None]
"""Logs the metrics of a stage at a step."""
SECONDS_BETWEEN_LINES = 10.0

logger = logging.getLogger(__name__)


def progress(
    iterable: Iterable[T],
    *,
    total: int,
    label: str,
    unit: str,
    done: int = 0,
    size: Callable[[T], int] = lambda _: 1,
    note: Callable[[], str] = lambda: "",
) -> Iterator[T]:
    """Pass items through and show how many of `total` units are done; an item counts as `size` units.

    `done` units were done before. `note` gives words to show beside the numbers. A log gets a line every ten seconds:
    "extract: 1,200 of 7,701 images, 26/s, 4 min 10 s left".
    """
    if sys.stderr.isatty():
        with tqdm(total=total, initial=done, desc=label, unit=f" {unit}", delay=1) as bar:
            for item in iterable:
                yield item
                bar.set_postfix_str(note(), refresh=False)
                bar.update(size(item))
        return
    started = last = time.monotonic()
    before = done
    for item in iterable:
        yield item
        done += size(item)
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and done > before:
            last, rate = now, (done - before) / (now - started)
            left = duration((total - done) / rate)
            said = f", {words}" if (words := note()) else ""
            logger.info("%s: %s of %s %s, %.3g/s, %s left%s", label, f"{done:,}", f"{total:,}", unit, rate, left, said)


def duration(seconds: float) -> str:
    """Seconds as text in the two largest units: 250 → "4 min 10 s"."""
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
