"""Pictures decoded ahead of the networks, in worker processes, in order."""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
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
from fsae_mlflow.faces.sources import Picture
from fsae_mlflow.memory import keep_freed_memory

PICTURES_PER_TASK = 8  # a message per picture would cost more than decoding a small one
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()  # the former is Linux' memory


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
    with tempfile.TemporaryDirectory(prefix=f"fsae-{os.getpid()}-", dir=MEMORY) as folder:
        # multiprocessing would copy locks that threads hold (fork) or import the program, torch and all (spawn)
        pool = ProcessPoolExecutor(workers, initializer=_prepare, initargs=(os.getpid(), folder))
        pending: deque[Future[Parcel]] = deque()
        try:
            while True:
                while len(pending) < workers + 2 and (task := list(islice(remaining, PICTURES_PER_TASK))):
                    pending.append(pool.submit(_read_all, task, Path(folder)))
                if not pending:
                    return
                yield from pending.popleft().result().unpacked()
        finally:
            pool.shutdown(wait=True, kill_workers=True)


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
class Parcel:
    """Pictures on their way to the main process; their pixels lie in a file, as a pipe takes longer than decoding."""

    pictures: list[Decoded]
    sizes: list[tuple[int, ...] | None]
    pixels: Path | None

    @classmethod
    def packed(cls, pictures: list[Decoded], folder: Path) -> "Parcel":
        sizes = [None if picture.pixels is None else picture.pixels.shape for picture in pictures]
        path = folder / uuid4().hex
        try:
            with path.open("wb") as file:
                for picture in pictures:
                    if picture.pixels is not None:
                        file.write(picture.pixels.data)
        except OSError:  # the folder is full: the pipe has room
            path.unlink(missing_ok=True)
            return cls(pictures, sizes, None)
        return cls([replace(picture, pixels=None) for picture in pictures], sizes, path)

    def unpacked(self) -> Iterator[Decoded]:
        if self.pixels is None:
            yield from self.pictures
            return
        content, start = np.fromfile(self.pixels, np.uint8), 0
        self.pixels.unlink()
        for picture, size in zip(self.pictures, self.sizes, strict=True):
            if size is None:
                yield picture
            else:
                end = start + int(np.prod(size))
                yield replace(picture, pixels=content[start:end].reshape(size))
                start = end


def _read_all(pictures: list[Picture], folder: Path) -> Parcel:
    return Parcel.packed([read(picture) for picture in pictures], folder)


def _prepare(parent: int, folder: str) -> None:
    """A worker leaves Ctrl-C to its parent; if that is killed, it tidies up their folder and ends too."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent and psutil.pid_exists(parent):  # on Windows the dead keep being parents
            time.sleep(1)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
