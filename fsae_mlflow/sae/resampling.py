"""Neuron resampling: dead features get a second life where the reconstruction is worst (Bricken et al. 2023)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from fsae_mlflow.sae.base import SparseAutoencoder

ENCODER_NORM = 0.2


@torch.no_grad()
def resample(
    sae: SparseAutoencoder,
    optimizer: torch.optim.Optimizer,
    dead: Bool[Tensor, " d_sae"],
    pool: Float[Tensor, "n d_in"],
    *,
    generator: torch.Generator,
) -> int:
    """Give each dead feature the direction of a template drawn from `pool` with probability ∝ its squared loss.

    Drawn with replacement, so a small pool serves any number of dead features. Encoder rows get 0.2 of the alive rows'
    mean norm, biases 0, and the optimiser's moments of those rows start anew. Gives the number of features resampled.
    """
    rows = dead.nonzero().squeeze(1)
    if len(rows) == 0:
        return 0
    loss = torch.cat([(batch - (sae.features(batch) @ sae.W_dec + sae.b_dec)).square().sum(dim=1) for batch in pool.split(1024)])
    weight = loss.double().square()
    if not weight.sum() > 0:
        weight = torch.ones_like(weight)
    drawn = torch.multinomial(weight.cpu(), len(rows), replacement=True, generator=generator).to(pool.device)
    alive = sae.W_enc[~dead] if (~dead).any() else sae.W_enc
    sae.revive(rows, F.normalize(pool[drawn], dim=1), ENCODER_NORM * float(alive.norm(dim=1).mean()))
    _forget(optimizer, sae, rows)
    return len(rows)


def _forget(optimizer: torch.optim.Optimizer, sae: nn.Module, rows: Tensor) -> None:
    for parameter in sae.parameters():
        if parameter.shape[0] != len(sae.W_dec):  # pyright: ignore[reportArgumentType]
            continue
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in optimizer.state[parameter]:
                optimizer.state[parameter][moment][rows] = 0
