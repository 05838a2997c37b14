"""Files and folders that are written completely or not at all."""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsae_mlflow.machine.processes import lives

# Safetensors writes to .tmpXXXXXX beside its file.
LEFT_OVER_OF_SAFETENSORS = re.compile(r"\.tmp[A-Za-z0-9]{6}")
LEFT_OVER = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.(?P<kind>tmp|old)")

logger = logging.getLogger(__name__)


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


def left_behind(path: Path) -> list[Path]:
    """The temporary files for `path` whose processes have died before they renamed them."""
    found = ((other, LEFT_OVER.fullmatch(other.name)) for other in path.parent.glob(f".{path.name}.*.tmp"))
    return [other for other, match in found if match and not _is_another_living_process(int(match["pid"]))]


def clean(folder: Path) -> None:
    """Remove what processes that have died left half written in `folder`.

    A former folder that was moved away for a new one that never came is put back. Call it before anything in `folder`
    is read or written.
    """
    for path in folder.iterdir():
        if LEFT_OVER_OF_SAFETENSORS.fullmatch(path.name):
            _remove(path)
        found = LEFT_OVER.fullmatch(path.name)
        if not found or _is_another_living_process(int(found["pid"])):
            continue
        if found["kind"] == "old" and not (folder / found["name"]).exists():
            logger.warning("%s is put back: the process that was replacing it has died.", folder / found["name"])
            path.replace(folder / found["name"])
        else:
            _remove(path)


def _is_another_living_process(pid: int) -> bool:
    # This one's number is an earlier process's: in a container, each one can have the same number.
    return pid != os.getpid() and lives(pid)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
