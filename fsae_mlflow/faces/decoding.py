"""Pictures decoded in order, ahead of their use, in worker processes."""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import UInt8
from loky import ProcessPoolExecutor

from fsae_mlflow.faces.images import UnreadableImageError, decode
from fsae_mlflow.faces.pictures import Picture
from fsae_mlflow.machine.memory import keep_freed_memory
from fsae_mlflow.machine.processes import lives

PICTURES_PER_TASK, PIXELS_PER_TASK = 8, 1_000_000  # one message per small picture would cost more than its decoding
IN_USE = ".lock"
WORKER_FREE_MEMORY = 2**26  # bytes; loky restarts a worker that grows by 300 MB, as if it leaked memory


@dataclass(frozen=True)
class Decoded:
    """A picture with its pixels, or with the reason why there are none."""

    picture: Picture
    pixels: UInt8[np.ndarray, "height width 3"] | None
    reason: str = ""


def decoded(pictures: Iterable[Picture], *, workers: int) -> Generator[Decoded]:
    """Read and decode pictures in their order, a bounded number ahead; `workers=0` decodes in this process.

    Raises: OSError if remote storage fails for another reason than a missing picture.
    """
    if not workers:
        yield from map(read, pictures)
        return
    remaining = iter(pictures)
    sweep(Path(memory_folder()))
    with (
        tempfile.TemporaryDirectory(prefix=f"fsae-{os.getpid()}-", dir=memory_folder()) as folder,
        FileLock(Path(folder) / IN_USE),
    ):
        # not multiprocessing: fork copies locks that threads hold, spawn imports the main program with torch
        pool = ProcessPoolExecutor(workers, initializer=_prepare, initargs=(os.getpid(), folder))
        pending: deque[Future[list[Transfer]]] = deque()
        per_task = 1
        try:
            while True:
                while len(pending) < workers + 2 and (task := list(islice(remaining, per_task))):
                    pending.append(pool.submit(_read_all, task, Path(folder)))
                if not pending:
                    return
                items = [transfer.unpack() for transfer in pending.popleft().result()]
                n_pixels = sum(item.pixels.size // 3 for item in items if item.pixels is not None)
                per_task = min(PICTURES_PER_TASK, max(1, PIXELS_PER_TASK * len(items) // max(1, n_pixels)))
                yield from items
        finally:
            pool.shutdown(wait=True, kill_workers=True)


def memory_folder() -> str:
    """A folder in memory if the system has one (Linux), else on the disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()


def sweep(place: Path) -> None:
    """Remove the folders of pixels that dead processes left in `place`."""
    for folder in place.glob("fsae-*-*"):
        number = folder.name.split("-")[1]
        if not number.isdecimal() or lives(int(number)):
            continue
        # A container may share the memory but not the numbers of processes, so a folder must not be locked either.
        with suppress(OSError, Timeout), FileLock(folder / IN_USE, blocking=False):
            shutil.rmtree(folder, ignore_errors=True)


def read(picture: Picture) -> Decoded:
    """Read and decode one picture; one that cannot be read gets the reason.

    Raises: OSError if remote storage fails: the picture may be good, so the run should stop and continue later.
    """
    if picture.fault:
        return Decoded(picture, None, picture.fault)
    try:
        return Decoded(picture, decode(picture.read()))
    except UnreadableImageError as error:
        return Decoded(picture, None, str(error))
    except FileNotFoundError:
        return Decoded(picture, None, "The file does not exist.")
    except OSError as error:
        if picture.location.root and not isinstance(error, PermissionError):
            raise OSError(
                f"{picture.location} cannot be read now ({error}); run the same command again to continue."
            ) from error
        return Decoded(picture, None, f"The file cannot be read ({error.strerror or error}).")


@dataclass(frozen=True)
class Transfer:
    """A picture sent to the main process, its pixels in a file: through a pipe they take longer than decoding."""

    item: Decoded
    size: tuple[int, ...] = ()
    path: Path | None = None

    @classmethod
    def pack(cls, item: Decoded, folder: Path) -> "Transfer":
        if item.pixels is None:
            return cls(item)
        path = folder / uuid4().hex
        try:
            item.pixels.tofile(path)
        except OSError:  # the folder is full, so the pixels go through the pipe
            path.unlink(missing_ok=True)
            return cls(item)
        return cls(replace(item, pixels=None), item.pixels.shape, path)

    def unpack(self) -> Decoded:
        if self.path is None:
            return self.item
        pixels = np.fromfile(self.path, np.uint8).reshape(self.size)
        self.path.unlink()
        return replace(self.item, pixels=pixels)


def _read_all(pictures: list[Picture], folder: Path) -> list[Transfer]:
    return [Transfer.pack(read(picture), folder) for picture in pictures]


def _prepare(parent: int, folder: str) -> None:
    """Let the parent handle signals; if the parent is killed, remove the folder and end this worker too."""
    keep_freed_memory(WORKER_FREE_MEMORY)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
