"""One writer for each output folder."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.atomic import clean

LOCK, HOLDER = ".lock", ".writer.json"


@contextmanager
def only_writer(folder: Path, *, instead: str = "") -> Iterator[None]:
    """Keep other processes from writing to `folder` during the block.

    The operating system releases the lock of a process that has died, so a stale lock is taken over. What such a
    process left half written in `folder` is removed.

    Raises: UserError naming the process that holds the lock, and what to do `instead` of waiting, if anything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        advice = ", ".join(["wait for it", *([instead] if instead else []), "or stop it"])
        raise UserError(f"output: {folder} is being written by {_holder(folder)}; {advice}.") from None
    holder = folder / HOLDER
    holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
    try:
        clean(folder)
        yield
    finally:
        holder.unlink(missing_ok=True)
        # The writing is over. Who has the removed file open does not get its lock: filelock looks.
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def has_writer(folder: Path) -> bool:
    """Whether a living process writes to `folder`."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, blocking=False):
            return False
    except Timeout:
        return True


def _holder(folder: Path) -> str:
    try:
        found = json.loads((folder / HOLDER).read_text())
        return f"process {found['pid']} on {found['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
