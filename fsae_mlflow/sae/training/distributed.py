"""Feature-parallel training: each process (rank) holds a slice of the features, with their rows, biases and moments.

Per step only the partial reconstructions (templates × d_in numbers a channel) are summed over ranks, not the
gradients of d_sae × d_in weights. Every rank sees every batch; b_dec is held by all, equally.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from fsae_mlflow.sae.base import SparseAutoencoder


@dataclass(frozen=True)
class Ranks:
    """One process among those that train one SAE; alone by default."""

    rank: int = 0
    size: int = 1

    @property
    def alone(self) -> bool:
        return self.size == 1

    def features(self, d_sae: int) -> slice:
        """The features that this rank holds."""
        return slice(d_sae * self.rank // self.size, d_sae * (self.rank + 1) // self.size)

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

    def joined(self, part: Shaped[Tensor, "n ..."], d_sae: int) -> Shaped[Tensor, "d_sae ..."]:
        """All ranks' rows of a per-feature tensor."""
        if self.alone:
            return part
        whole = torch.zeros(d_sae, *part.shape[1:], dtype=part.dtype)
        whole[self.features(d_sae)] = part
        return self.sum(whole.to(torch.uint8)).bool() if part.dtype == torch.bool else self.sum(whole)


@contextmanager
def launched_ranks() -> Iterator[Ranks]:
    """The ranks that torchrun started, joined by gloo; one alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    dist.init_process_group("gloo")
    try:
        yield Ranks(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def is_per_feature(name: str, tensor: Tensor, d_sae: int) -> bool:
    """Whether a tensor of an SAE (or a moment of one) has a row for each feature."""
    return name not in ("b_dec", "center") and tensor.ndim > 0 and len(tensor) == d_sae


def part_of(sae: SparseAutoencoder, ranks: Ranks) -> SparseAutoencoder:
    """The slice of an SAE that this rank holds, as an SAE of its own.

    Raises: ValueError for a variant whose features compete, and would have to across ranks.
    """
    if ranks.alone:
        return sae
    if sae.revival == "auxiliary":
        raise ValueError(
            f"variant={sae.variant} trains in one process only: its features compete; "
            "use gated, relu or jumprelu under torchrun."
        )
    mine = ranks.features(sae.d_sae)
    part = type(sae)(**{**sae.hyperparameters, "d_sae": mine.stop - mine.start})
    part.load_state_dict(cut(sae.state_dict(), ranks, sae.d_sae))
    return part


def cut(tensors: dict[str, Any], ranks: Ranks, d_sae: int) -> dict[str, Any]:
    """The rank's rows of the per-feature tensors, and the others as they are."""
    mine = ranks.features(d_sae)
    return {
        name: tensor[mine].clone() if is_per_feature(name, tensor, d_sae) else tensor
        for name, tensor in tensors.items()
    }


def join(tensors: dict[str, Tensor], ranks: Ranks, n_part: int, d_sae: int) -> dict[str, Tensor]:
    """The inverse of `cut`, on every rank."""
    if ranks.alone:
        return tensors
    return {
        name: ranks.joined(tensor.detach(), d_sae) if is_per_feature(name, tensor, n_part) else tensor
        for name, tensor in tensors.items()
    }
