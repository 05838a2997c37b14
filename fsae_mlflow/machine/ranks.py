"""Several processes that work on one result, as torchrun starts them."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Shaped
from safetensors.numpy import load, save
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """One process among `size`; by default it is alone.

    The methods on tensors need the processes to be connected (`connected_ranks`).
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def of_environment(cls) -> "Ranks":
        """What torchrun's RANK and WORLD_SIZE say; without them, one process alone."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that logs, and writes what is written once."""
        return self.rank == 0

    def part(self, n: int) -> slice:
        """The rank's contiguous part of `n` things."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def turns(self, n: int) -> range:
        """The rank's things among `n` that the ranks take in turn."""
        return range(self.rank, n, self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor's sum over ranks, in place."""
        if not self.alone:
            dist.all_reduce(tensor)
        return tensor

    def any(self, *flags: bool) -> list[bool]:
        """Whether each flag is set on some rank; every rank gets the same answer."""
        if self.alone:
            return list(flags)
        return [bool(count) for count in self.sum(torch.tensor([float(flag) for flag in flags]))]

    def joined(self, part: Shaped[Tensor, "n_part ..."], n: int) -> Shaped[Tensor, "n ..."]:
        """All ranks' rows of a tensor of which each rank holds its `part`."""
        if self.alone:
            return part
        whole = torch.zeros(n, *part.shape[1:], dtype=part.dtype)
        whole[self.part(n)] = part
        return self.sum(whole.to(torch.uint8)).bool() if part.dtype == torch.bool else self.sum(whole)

    def later(self, state: Callable[[], Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """On the first rank, what `state` gives on the other ranks, in their order; nothing on these, who send it."""
        if self.alone:
            return
        if not self.leads:
            data = torch.frombuffer(bytearray(save(dict(state()))), dtype=torch.uint8)
            dist.send(torch.tensor([len(data)]), 0)
            dist.send(data, 0)
            return
        for rank in range(1, self.size):
            size = torch.zeros(1, dtype=torch.int64)
            dist.recv(size, rank)
            data = torch.zeros(int(size), dtype=torch.uint8)
            dist.recv(data, rank)
            yield load(data.numpy().tobytes())


@contextmanager
def connected_ranks() -> Iterator[Ranks]:
    """The processes that torchrun started, connected by gloo; one alone without torchrun."""
    ranks = Ranks.of_environment()
    if ranks.alone:
        yield ranks
        return
    dist.init_process_group("gloo")
    try:
        yield ranks
    finally:
        dist.destroy_process_group()
