"""Where tensors are computed, and what becomes of freed memory."""

import ctypes
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT, LARGEST_KEPT = 2**30, 2**25  # bytes; glibc takes nothing above 32 MiB for the second


def choose_device(name: str) -> torch.device:
    """The device called `name`: "auto" takes a CUDA device where there is one, else the CPU.

    Raises: ValueError when the device is unknown or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu or cuda (cuda:0, cuda:1, …); it is {name!r}.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name} is not on this machine ({torch.cuda.device_count()} CUDA devices); use device=auto."
        )
    return device


def keep_freed_memory() -> None:
    """Have glibc keep up to 1 GiB of freed blocks for the next tensors, from now on and in the whole process: getting
    them afresh, page by page, costs a tenth of the time. Does nothing where the C library is another one.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
