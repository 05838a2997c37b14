"""Optuna's journal of a study, which a process may be killed while writing."""

import os
from pathlib import Path

from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from fsae_mlflow.errors import UserError


class Lock(JournalFileOpenLock):
    """The lock to write in the journal `path`. Whoever takes it removes the line that a killed process left unfinished.

    Optuna would go on in the same line, and no process could read the study again. Optuna's own lock outlives a killed
    process, and can be taken from a slow one; this one is the operating system's.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self.lock = FileLock(path.with_name(f".{path.name}.lock"), thread_local=False)

    def acquire(self) -> bool:
        self.lock.acquire()
        try:
            _cut_unfinished_line(self.path)
        except BaseException:
            self.lock.release()
            raise
        return True

    def release(self) -> None:
        self.lock.release()


def open_journal(path: Path) -> JournalStorage:
    """The storage in the journal `path`, which is created if there is none.

    Raises: UserError if it is damaged.
    """
    try:
        return JournalStorage(JournalFileBackend(str(path), Lock(path)))
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        raise UserError(f"{path} is damaged ({error}); give another output, or put back a copy of the file.") from error


def _cut_unfinished_line(path: Path) -> None:
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start, tail = end, b""
        while start and b"\n" not in tail:
            start = max(0, start - 4096)
            file.seek(start)
            tail = file.read(end - start)
        finished = start + tail.rfind(b"\n") + 1
        if finished < end:
            file.truncate(finished)
