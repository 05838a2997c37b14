"""What the SAEs, their loss and their training speak about."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

TERMS = ("reconstruction", "sparsity", "auxiliary", "total")
"""The terms of a loss and their sum, by name."""
Expand = Callable[[Tensor], Tensor]
"""Gives every entry its feature's value of a per-feature parameter."""


@dataclass(frozen=True)
class Loss:
    """The terms of one batch's loss, each summed over dimensions or features and averaged over the batch.

    `counts` are the templates of the batch that fire each feature. `least` is the smallest activation that fired where
    features compete, else infinity. `x_hat` is what the batch decodes to, without a gradient.
    """

    reconstruction: Float[Tensor, ""]
    sparsity: Float[Tensor, ""]
    auxiliary: Float[Tensor, ""]
    counts: Int64[Tensor, " d_sae"]
    least: Float[Tensor, ""]
    x_hat: Float[Tensor, "batch d_in"]

    @property
    def fired(self) -> Bool[Tensor, " d_sae"]:
        """The features that at least one template of the batch fires."""
        return self.counts > 0

    @property
    def total(self) -> Float[Tensor, ""]:
        return self.reconstruction + self.sparsity + self.auxiliary

    @property
    def stacked(self) -> Float[Tensor, " terms"]:
        """The values of TERMS, without a gradient, on their device."""
        return torch.stack([getattr(self, name).detach() for name in TERMS])

    def as_floats(self) -> dict[str, float]:
        """The terms and their sum by name, read from the device at once."""
        return dict(zip(TERMS, self.stacked.tolist(), strict=True))


@dataclass(frozen=True)
class Activations:
    """What entries are worth.

    `features` decode to x̂. `auxiliary`, where a variant has it, decodes to the estimate of the auxiliary loss term.
    `sparsity` is the sparsity penalty summed over the entries, before its weight λ.
    """

    features: Float[Tensor, "..."]
    auxiliary: Float[Tensor, "..."] | None
    sparsity: Float[Tensor, ""]


@dataclass(frozen=True)
class Competition:
    """How features compete: the `k` largest entries of each template fire, or the k · batch largest of the whole batch
    where the batch shares its places (`shared`).

    Of the dead features, the `k_aux` largest of each template take part in the auxiliary loss term.
    """

    k: int
    shared: bool
    k_aux: int

    def topk_mask(self, scores: Float[Tensor, "batch d_sae"]) -> Bool[Tensor, "batch d_sae"]:
        """Which entries fire."""
        rows = scores.reshape(1, -1) if self.shared else scores
        k = self.k * len(scores) if self.shared else self.k
        mask = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, rows.topk(k, dim=1).indices, True)
        return mask.view_as(scores)

    def dead_mask(self, scores: Float[Tensor, "batch n_dead"]) -> Bool[Tensor, "batch n_dead"]:
        """Which entries of dead features take part in the auxiliary term."""
        chosen = scores.topk(min(self.k_aux, scores.shape[1]), dim=1).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, chosen, True)


@dataclass(frozen=True)
class SaelensForm:
    """A variant in SAELens' terms: its architecture there, the tensors and the config fields of that architecture."""

    architecture: str
    tensors: dict[str, Tensor]
    config: dict[str, Any] = field(default_factory=dict)


@torch.no_grad()
def least_positive(values: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """The smallest positive value; infinity where there is none."""
    if values.numel() == 0:
        return values.new_full((), torch.inf)
    return torch.where(values > 0, values, torch.inf).min()
