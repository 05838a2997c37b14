"""The machine's memory; imports nothing large, because worker processes import this."""

import ctypes
import sys

import psutil

from fsae_mlflow.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT, LARGEST_KEPT = 2**30, 2**25  # bytes; glibc allows at most 32 MiB for the second


def keep_freed_memory(n_bytes: int = KEPT) -> None:
    """Make glibc keep up to `n_bytes` of freed memory for later use, in the whole process and from now on.

    To get it from the system again, page by page, takes a tenth of an extraction's time. Does nothing with another C
    library.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, n_bytes)


def machine_memory() -> int:
    """The machine's memory in bytes."""
    return psutil.virtual_memory().total


def require_memory(n_bytes: int, cause: str, advice: str) -> None:
    """Refuse at once what this machine can never hold, instead of failing after a while or being killed.

    Raises: UserError naming the cause (`expansion=1000000`), what it needs, and what to do.
    """
    if n_bytes > (has := machine_memory()):
        raise UserError(
            f"{cause} needs {n_bytes / 2**30:,.0f} GiB of memory, and the machine has {has / 2**30:,.0f}; {advice}."
        )
