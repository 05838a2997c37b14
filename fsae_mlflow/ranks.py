"""Several processes that work on one result, as torchrun starts them."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Ranks:
    """One process among `size`; by default it is alone."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of_environment(cls) -> "Ranks":
        """What torchrun's RANK and WORLD_SIZE say; one process alone without them."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes what all have made, and logs it."""
        return self.rank == 0

    def part(self, n: int) -> slice:
        """The rank's contiguous part of `n` things."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def turns(self, n: int) -> range:
        """The rank's things among `n` that the ranks take in turn."""
        return range(self.rank, n, self.size)
