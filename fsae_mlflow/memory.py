"""What becomes of freed memory; imports nothing large, for worker processes' sake."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT, LARGEST_KEPT = 2**30, 2**25  # bytes; glibc takes nothing above 32 MiB for the second


def keep_freed_memory(n_bytes: int = KEPT) -> None:
    """Have glibc keep up to `n_bytes` of freed blocks for the next ones, from now on and in the whole process: getting
    them afresh, page by page, costs a tenth of the time. Does nothing where the C library is another one.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, n_bytes)
