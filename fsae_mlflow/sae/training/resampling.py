"""Neuron resampling: dead features get a second life where the reconstruction is worst (Bricken et al. 2023)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.training.optimizer import AdamW

ENCODER_NORM = 0.2


@dataclass(frozen=True)
class NewDirections:
    """Where dead features go: their rows, unit directions for them, and the length of their encoder rows."""

    rows: Int[Tensor, " n_dead"]
    directions: Float[Tensor, "n_dead d_in"]
    encoder_norm: float

    def within(self, features: slice) -> "NewDirections":
        """Those of a run of features, counted from its start."""
        inside = (self.rows >= features.start) & (self.rows < features.stop)
        return NewDirections(self.rows[inside] - features.start, self.directions[inside], self.encoder_norm)


@torch.no_grad()
def draw_directions(
    sae: SparseAutoencoder, dead: Bool[Tensor, " d_sae"], pool: Float[Tensor, "n d_in"], *, generator: torch.Generator
) -> NewDirections:
    """For each dead feature the direction of a template drawn from `pool` with probability ∝ its squared loss.

    Drawn with replacement, so a small pool serves any number of dead features. Encoder rows get 0.2 of the alive
    rows' mean norm.
    """
    rows = dead.nonzero().squeeze(1)
    loss = torch.cat(
        [(batch - (sae.features(batch) @ sae.W_dec + sae.b_dec)).square().sum(dim=1) for batch in pool.split(1024)]
    )
    weight = loss.double().square()
    if not weight.sum() > 0:
        weight = torch.ones_like(weight)
    drawn = torch.multinomial(weight.cpu(), max(1, len(rows)), replacement=True, generator=generator).to(pool.device)[
        : len(rows)
    ]
    alive = sae.W_enc[~dead] if (~dead).any() else sae.W_enc
    return NewDirections(rows, F.normalize(pool[drawn], dim=1), ENCODER_NORM * float(alive.norm(dim=1).mean()))


@torch.no_grad()
def revive(sae: SparseAutoencoder, optimizer: AdamW, new: NewDirections) -> None:
    """Point dead features there, biases as at the start, and let the optimizer forget its moments of them."""
    if len(new.rows) == 0:
        return
    sae.revive(new.rows, new.directions, new.encoder_norm)
    for name in ("W_enc", "W_dec", *sae.feature_parameters):
        state = optimizer.state[getattr(sae, name)]
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in state:
                state[moment][new.rows] = 0
