"""Pictures decoded ahead of the networks, in worker processes, in order."""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from uuid import uuid4

import numpy as np
import psutil
from jaxtyping import UInt8
from loky import ProcessPoolExecutor

from fsae_mlflow.faces.images import UnreadableImageError, decode
from fsae_mlflow.faces.pictures import Picture
from fsae_mlflow.memory import keep_freed_memory

PICTURES_PER_TASK, PIXELS_PER_TASK = 8, 1_000_000  # a message per small picture would cost more than decoding it
KEPT_BY_A_WORKER = 2**26  # bytes; loky takes a worker that grows by 300 MB for a leaking one


@dataclass(frozen=True)
class Decoded:
    """A picture with its pixels, or with the reason why there are none."""

    picture: Picture
    pixels: UInt8[np.ndarray, "height width 3"] | None
    reason: str = ""


def decoded(pictures: Iterable[Picture], *, workers: int) -> Generator[Decoded]:
    """Read and decode pictures in their order, a bounded number ahead; `workers=0` works in this process.

    Raises: OSError where remote storage fails for another reason than a missing picture.
    """
    if not workers:
        yield from map(read, pictures)
        return
    remaining = iter(pictures)
    with tempfile.TemporaryDirectory(prefix=f"fsae-{os.getpid()}-", dir=memory_folder()) as folder:
        # multiprocessing would copy locks that threads hold (fork) or import the program, torch and all (spawn)
        pool = ProcessPoolExecutor(workers, initializer=_prepare, initargs=(os.getpid(), folder))
        pending: deque[Future[list[Handed]]] = deque()
        per_task = 1
        try:
            while True:
                while len(pending) < workers + 2 and (task := list(islice(remaining, per_task))):
                    pending.append(pool.submit(_read_all, task, Path(folder)))
                if not pending:
                    return
                items = [handed.received() for handed in pending.popleft().result()]
                n_pixels = sum(item.pixels.size // 3 for item in items if item.pixels is not None)
                per_task = min(PICTURES_PER_TASK, max(1, PIXELS_PER_TASK * len(items) // max(1, n_pixels)))
                yield from items
        finally:
            pool.shutdown(wait=True, kill_workers=True)


def memory_folder() -> str:
    """A folder in memory where the system has one (Linux), else on the disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()


def read(picture: Picture) -> Decoded:
    """Read and decode one picture; what cannot be read keeps its reason.

    Raises: OSError where remote storage fails: the picture may be good, and going on later is better than giving it up.
    """
    try:
        return Decoded(picture, decode(picture.read()))
    except UnreadableImageError as error:
        return Decoded(picture, None, str(error))
    except FileNotFoundError:
        return Decoded(picture, None, "There is no such file.")
    except OSError as error:
        if picture.location.root and not isinstance(error, PermissionError):
            raise OSError(
                f"{picture.location} cannot be read now ({error}); run the same command again to go on."
            ) from error
        return Decoded(picture, None, f"The file cannot be read ({error.strerror or error}).")


@dataclass(frozen=True)
class Handed:
    """A picture on its way to the main process, its pixels in a file: through a pipe they take longer than decoding."""

    item: Decoded
    size: tuple[int, ...] = ()
    path: Path | None = None

    @classmethod
    def over(cls, item: Decoded, folder: Path) -> "Handed":
        if item.pixels is None:
            return cls(item)
        path = folder / uuid4().hex
        try:
            item.pixels.tofile(path)
        except OSError:  # the folder is full: the pipe has room
            path.unlink(missing_ok=True)
            return cls(item)
        return cls(replace(item, pixels=None), item.pixels.shape, path)

    def received(self) -> Decoded:
        if self.path is None:
            return self.item
        pixels = np.fromfile(self.path, np.uint8).reshape(self.size)
        self.path.unlink()
        return replace(self.item, pixels=pixels)


def _read_all(pictures: list[Picture], folder: Path) -> list[Handed]:
    return [Handed.over(read(picture), folder) for picture in pictures]


def _prepare(parent: int, folder: str) -> None:
    """A worker leaves signals to its parent; when that has been killed, it tidies up their folder and ends too."""
    keep_freed_memory(KEPT_BY_A_WORKER)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent and psutil.pid_exists(parent):  # on Windows the dead keep being parents
            time.sleep(1)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
