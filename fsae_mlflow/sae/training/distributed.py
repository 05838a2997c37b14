"""Feature-parallel training: each rank holds a slice of the features, with their rows, biases and moments.

In a step only the partial reconstructions (templates × d_in numbers a channel) are summed over ranks, not the gradients
of d_sae × d_in weights. Every rank sees every batch, and all hold the same b_dec.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fsae_mlflow.errors import UserError
from fsae_mlflow.machine.ranks import Ranks
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.variants.registry import VARIANT


def is_per_feature(sae: SparseAutoencoder, name: str, tensor: Tensor) -> bool:
    """Whether a tensor of the SAE, or what the optimizer knows of it, has a row for each feature."""
    return tensor.ndim > 0 and name in (*sae.feature_rows, *sae.feature_parameters)


def part_of(sae: SparseAutoencoder, ranks: Ranks) -> SparseAutoencoder:
    """The slice of an SAE that this rank holds, as an SAE of its own.

    Raises: UserError for a variant whose features compete, because they would have to compete across ranks.
    """
    if ranks.alone:
        return sae
    if sae.competition is not None:
        raise UserError(
            f"variant={VARIANT.name_of(sae.settings)} trains in one process only, because its features compete; "
            "use gated, relu or jumprelu under torchrun."
        )
    mine = ranks.part(sae.d_sae)
    part = sae.untrained(mine.stop - mine.start)
    part.load_state_dict(cut(sae.state_dict(), sae, ranks, sae.d_sae))
    return part


def whole_shapes(tensors: Mapping[str, Tensor], sae: SparseAutoencoder, d_sae: int) -> dict[str, torch.Size]:
    """The shapes of tensors of all `d_sae` features, of which `tensors` are a rank's."""
    return {
        name: torch.Size((d_sae, *tensor.shape[1:])) if is_per_feature(sae, name, tensor) else tensor.shape
        for name, tensor in tensors.items()
    }


def cut(tensors: dict[str, Any], sae: SparseAutoencoder, ranks: Ranks, d_sae: int) -> dict[str, Any]:
    """The rank's rows of the per-feature tensors, and the other tensors as they are; `sae` names the former."""
    mine = ranks.part(d_sae)
    return {
        name: tensor[mine].clone() if is_per_feature(sae, name, tensor) else tensor for name, tensor in tensors.items()
    }


def join(tensors: dict[str, Tensor], sae: SparseAutoencoder, ranks: Ranks, d_sae: int) -> dict[str, Tensor]:
    """The inverse of `cut`, on every rank."""
    if ranks.alone:
        return tensors
    return {
        name: ranks.joined(tensor.detach(), d_sae) if is_per_feature(sae, name, tensor) else tensor
        for name, tensor in tensors.items()
    }
