"""What a run logs: written to a file first, and sent to the tracking server by a thread, in order.

The file is the queue. A stage only appends a line to it, so a slow or absent server never makes it wait, and the memory
in use does not grow. When everything has arrived the file is deleted; else `python -m entrypoints.upload` sends the
rest. An entry whose answer was lost is sent again, and each kind of entry gives the same when it arrives twice: MLflow
keeps one metric point for a name, step, time and value, one value for a parameter, a tag or an artifact.
"""

import json
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.progress import SECONDS_BETWEEN_LINES
from fsae_mlflow.tracking.process.owners import process_tags
from fsae_mlflow.tracking.runs.answers import PATIENCE_SECONDS, is_refusal, said, server
from fsae_mlflow.tracking.runs.sending import attempt, stamp_of

PATTERN = "unlogged-*.jsonl"
LONGEST_PAUSE_SECONDS = 15.0
MAX_METRICS = 1000
MAX_PARAM_LENGTH = 6000
REASON_TAG = "fsae.reason"
NAMES = {"params": "parameter sets", "tags": "tag sets", "path": "artifacts", "json": "artifacts", "table": "artifacts"}
NAMES |= {
    "metrics": "metric entries",
    "tag_run": "tag sets",
    "dataset": "inputs",
    "model": "models",
    "used_model": "models",
    "card": "model cards",
    "image": "artifacts",
    "register": "the registered model",
    "end": "the run's end",
}

Point = tuple[Any, ...]
"""A metric's name, value, milliseconds and step; then, if any, a LoggedModel's id, and a dataset's name and digest."""

logger = logging.getLogger(__name__)


class NotLoggedError(UserError):
    """A stage is finished on disk, and part of what it logs is not on the tracking server."""

    exit_code = 3


class Journal:
    """The entries of one run that the tracking server does not have yet, and the thread that sends them."""

    def __init__(self, run_id: str, folder: Path, *, stage: str) -> None:
        self.run_id = run_id
        self.stage = stage
        self.folder = folder
        self.path = folder.resolve() / PATTERN.replace("*", run_id)
        self.client = MlflowClient()
        self.header = self._header(process_tags())
        self.position = self.size = len(self.header)
        self.in_memory: deque[str] = deque()  # while the disk is full
        self.refused: list[str] = []
        self.trouble = ""
        self.is_open = False
        self.away = False  # whether the last request found no server
        self.sending_file = False
        self.stopped = self.halted = False
        self.n_left = 0
        self.changed = threading.Condition()
        self.arrived_at = time.monotonic()
        self.thread: threading.Thread | None = None

    def put(self, entry: dict[str, Any]) -> None:
        """Add an entry; this never waits for the server, and never raises for a full disk."""
        line = json.dumps(entry) + "\n"
        with self.changed:
            self.in_memory.append(line)
            self.n_left += 1
            try:
                self._write()
            except OSError as error:
                logger.warning("%s: %s; what the run logs is kept in memory.", self.path, error.strerror)
            if self.thread is None:
                self.thread = threading.Thread(target=self._work, name="fsae-log", daemon=True)
                self.thread.start()
            self.changed.notify_all()

    def flush(self, patience: float = PATIENCE_SECONDS) -> bool:
        """Wait until every entry has arrived, or nothing has arrived for `patience` seconds; whether all have."""
        with self.changed:
            self.arrived_at = time.monotonic()
            self.changed.notify_all()
            said_at = time.monotonic()
            while self._goes_on and time.monotonic() - self.arrived_at < patience:
                self.changed.wait(0.2)
                if self.sending_file and not self.away:  # a large file may take its time
                    self.arrived_at = time.monotonic()
                if time.monotonic() - said_at >= SECONDS_BETWEEN_LINES:
                    said_at = time.monotonic()
                    logger.info("%s: %d entries are still to be sent to %s", self.stage, self.n_left, server())
            return self._is_empty and not self.refused

    def close(self, patience: float, *, finished: bool = True) -> str:
        """Send what is left, end the thread, and give a sentence on what has not arrived ("" when all has).

        `finished` says whether the stage has done its work.
        """
        try:
            complete = self.thread is None or self.flush(patience)
        except KeyboardInterrupt:  # the user does not want to wait any longer
            complete = False
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
            if complete:
                if self.is_open:  # else it is an earlier start's, and the disk was full
                    self.path.unlink(missing_ok=True)
                with suppress(OSError):  # unless this folder is empty, it stays
                    self.path.parent.rmdir()
                return ""
            rest = [*self.refused, *self._rest()]
            # Whoever reads the sentence sees the entries in this file and no others.
            try:
                with atomic_write(self.path) as temporary:
                    temporary.write_text(self._header({}) + "".join(rest))
            except OSError as error:
                logger.warning("%s: %s; the file lacks the last %d entries.", self.path, error, len(self.in_memory))
        return not_logged(self.stage, rest, self.trouble, self.folder, finished=finished)

    @property
    def _goes_on(self) -> bool:
        return not self._is_empty and not self.halted and self.thread is not None and self.thread.is_alive()

    def _header(self, process: dict[str, str]) -> str:
        """The first line of the file; it names the process while that still writes the file."""
        entry = {"run": self.run_id, "stage": self.stage, "server": server(), "process": process}
        return json.dumps(entry) + "\n"

    @property
    def _is_empty(self) -> bool:
        return self.position == self.size and not self.in_memory

    def _write(self) -> None:
        if not self.is_open or not self.path.exists():
            self._open()
        with self.path.open("r+") as file:
            file.truncate(self.size)  # without half a line of an attempt that found the disk full
            file.seek(self.size)
            lines = "".join(self.in_memory)
            file.write(lines)
            file.flush()
            self.size += len(lines)
        self.in_memory.clear()

    def _open(self) -> None:
        """Begin the file, with what an earlier start of the run has left in it."""
        lines = self.path.read_text().splitlines(keepends=True)[1:] if self.path.exists() else []
        # A process that died may leave half a line.
        due = [line for line in lines if line.endswith("\n") and _is_due(json.loads(line))]
        with atomic_write(self.path) as temporary:
            temporary.write_text(self.header + "".join(due))
        self.position = len(self.header)
        self.size = self.position + sum(map(len, due))
        self.n_left += len(due)
        self.is_open = True

    def _rest(self) -> list[str]:
        text = self.path.read_text()[self.position : self.size] if self.position < self.size else ""
        return [*text.splitlines(keepends=True), *self.in_memory]

    def _next(self) -> list[str]:
        """The next entry's line, or the lines of several entries of metrics that go in one request."""
        if self.position == self.size:
            return list(self.in_memory)[:1]
        lines, n = [], 0
        with self.path.open() as file:
            file.seek(self.position)
            while file.tell() < self.size:
                line = file.readline()
                n += len(json.loads(line).get("metrics", [None] * MAX_METRICS))
                if lines and n > MAX_METRICS:
                    break
                lines.append(line)
        return lines

    def _advance(self, lines: list[str]) -> None:
        if self.position == self.size:
            self.in_memory.popleft()
        else:
            self.position += sum(map(len, lines))
        self.n_left -= len(lines)
        self.arrived_at = time.monotonic()

    def _work(self) -> None:
        pause = 0.0
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.stopped or not self._is_empty)
                if self.stopped:
                    return
                lines = self._next()
            entries = [json.loads(line) for line in lines]
            if entries[0]["do"] == "register":  # for upload: it needs MLflow's active run, which belongs to a thread
                with self.changed:
                    self.halted, self.trouble = True, entries[0]["trouble"]
                    self.changed.notify_all()
                return
            self.sending_file = entries[0]["do"] == "path"
            error = attempt(self.client, self.run_id, entries)
            with self.changed:
                self.sending_file = False
                self.away = error is not None and not is_refusal(error)
                if self.stopped:
                    return
                if error is None or is_refusal(error):
                    if error is not None:
                        self.refused += lines
                        logger.warning("%s refuses an entry: %s", server(), said(error))
                    elif pause:
                        logger.warning("%s answers again.", server())
                    pause = 0.0
                    self._advance(lines)
                    self.changed.notify_all()
                else:
                    if not pause:
                        logger.warning("%s does not answer: %s; trying again, meanwhile the work goes on.",
                                       server(), said(error))  # fmt: skip
                    pause = min(pause * 2 or 0.5, LONGEST_PAUSE_SECONDS)
                    self.changed.wait_for(lambda: self.stopped, timeout=pause)
                self.trouble = self.trouble if error is None else said(error)


def _is_due(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of an earlier start still holds: a run that is started again ends and registers by itself, and
    logs files that have changed since.
    """
    if entry["do"] in ("end", "register") or REASON_TAG in entry.get("values", ()):
        return False
    path = Path(entry.get("path", ""))
    return path.exists() and entry.get("stamp") in (None, stamp_of(path))


def not_logged(stage: str, lines: list[str], trouble: str, folder: Path, *, finished: bool = True) -> str:
    """The sentence that says what has not arrived, why, and which command sends it later."""
    kinds = [str(json.loads(line)["do"]) for line in lines]
    counted = Counter(NAMES.get(kind, kind) for kind in kinds)
    what = ", ".join(name if name.startswith("the ") else f"{n} {name}" for name, n in counted.items())
    return (
        f"{stage}: {'its results are on disk, but ' if finished else ''}{what} could not be logged to {server()} "
        f"({trouble or 'no answer yet'}). "
        f"Log them later with: python -m entrypoints.upload {folder}"
    )


def metric_points(metrics: Mapping[str, float], step: int, of: Sequence[str] = ()) -> list[Point]:
    """Metrics at one step as they stand in an entry; `of` says what they are of, see `Point`."""
    now = time.time_ns() // 1_000_000
    return [(name, float(value), now, step, *of) for name, value in metrics.items()]
