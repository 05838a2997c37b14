"""Files and folders that are written completely or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` for a new file or folder, and rename it to `path` on success.

    Until then `path` keeps its content; on an error the temporary is removed.

    Raises: OSError from writing, such as a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        if path.is_dir():
            # A folder cannot replace another in one rename, so the old one is moved away first.
            former = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.replace(former)
            temporary.replace(path)
            _remove(former)
        else:
            temporary.replace(path)
    except BaseException:
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
