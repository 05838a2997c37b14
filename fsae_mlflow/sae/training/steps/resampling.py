"""Neuron resampling: dead features get a new direction where the reconstruction is worst (Bricken et al. 2023)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.optimizer import AdamW

POOL = 8192  # templates from which new directions are drawn
ENCODER_NORM = 0.2


@dataclass(frozen=True)
class NewDirections:
    """What dead features get: their rows, unit directions, and the norm of their encoder rows."""

    rows: Int[Tensor, " n_dead"]
    directions: Float[Tensor, "n_dead d_in"]
    encoder_norm: float

    def within(self, features: slice) -> "NewDirections":
        """Those of a slice of the features, with rows counted from its start."""
        inside = (self.rows >= features.start) & (self.rows < features.stop)
        return NewDirections(self.rows[inside] - features.start, self.directions[inside], self.encoder_norm)


@torch.no_grad()
def draw_directions(
    sae: SparseAutoencoder, dead: Bool[Tensor, " d_sae"], pool: Float[Tensor, "n d_in"], *, generator: torch.Generator
) -> NewDirections:
    """For each dead feature the direction of a template, drawn from `pool` with probability ∝ its squared loss.

    No template is drawn twice, because features that begin as copies stay copies: where more features are dead than
    `pool` has templates with a loss, the others stay dead. The encoder rows get 0.2 of the alive rows' mean norm.
    """
    rows = dead.nonzero().squeeze(1)
    x_hat = torch.cat([sae.features(batch) @ sae.W_dec + sae.b_dec for batch in pool.split(1024)])
    weight = (pool - x_hat).square().sum(dim=1).double().square().cpu()
    rows = rows[: int((weight > 0).sum())]
    drawn = torch.multinomial(weight, len(rows), generator=generator) if len(rows) else rows.cpu()
    alive = sae.W_enc[~dead] if (~dead).any() else sae.W_enc
    directions = F.normalize(pool[drawn.to(pool.device)], dim=1)
    return NewDirections(rows, directions, ENCODER_NORM * float(alive.norm(dim=1).mean()))


@torch.no_grad()
def revive(sae: SparseAutoencoder, optimizer: AdamW, new: NewDirections) -> None:
    """Give dead features these directions, biases as at the start, and zero moments in the optimizer."""
    if len(new.rows) == 0:
        return
    sae.revive(new.rows, new.directions, new.encoder_norm)
    for name in ("W_enc", "W_dec", *sae.feature_parameters):
        state = optimizer.state[getattr(sae, name)]
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in state:
                state[moment][new.rows] = 0
