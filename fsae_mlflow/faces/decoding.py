"""Pictures decoded ahead of the networks, in worker processes, in order."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice

import numpy as np
import psutil
from jaxtyping import UInt8
from loky import ProcessPoolExecutor

from fsae_mlflow.faces.images import UnreadableImageError, decode
from fsae_mlflow.faces.sources import Picture

PICTURES_PER_TASK = 4  # a message per picture would cost more than decoding a small one


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
    # multiprocessing would copy locks that threads hold (fork) or import the program, torch and all (spawn)
    pool = ProcessPoolExecutor(workers, initializer=_end_with_parent, initargs=(os.getpid(),))
    pending: deque[Future[list[Decoded]]] = deque()
    try:
        while True:
            while len(pending) < 2 * workers + 2 and (task := list(islice(remaining, PICTURES_PER_TASK))):
                pending.append(pool.submit(_read_all, task))
            if not pending:
                return
            yield from pending.popleft().result()
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


def _read_all(pictures: list[Picture]) -> list[Decoded]:
    return [read(picture) for picture in pictures]


def _end_with_parent(parent: int) -> None:
    """Leave Ctrl-C to the parent, and do not outlive it if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent and psutil.pid_exists(parent):  # on Windows the dead keep being parents
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
