"""The gated sparse autoencoder of Rajamanoharan et al. 2024 (arXiv 2404.16014), with tied gate and magnitude weights."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fsae_mlflow.sae.base import Loss, SparseAutoencoder


class GatedSAE(SparseAutoencoder):
    """Which features fire is decided by a gate, how strongly by a magnitude path with the same directions.

        π_gate = W_gate (x − b_dec) + b_gate
        π_mag  = exp(r_mag) ⊙ W_gate (x − b_dec) + b_mag
        f      = 1[π_gate > 0] ⊙ ReLU(π_mag)
        x̂      = W_dec f + b_dec

    `W_enc` is W_gate; `W_dec` holds one decoder direction a row (the paper's columns).
    """

    variant = "gated"

    def __init__(self, d_in: int, d_sae: int, *, lam: float = 0.0, scale: float = 1.0) -> None:
        super().__init__(d_in, d_sae, lam=lam, scale=scale)
        directions = F.normalize(torch.randn(d_sae, d_in), dim=1)
        # Half of the features fire at the start: rows this short keep their sum near the template at any expansion.
        self.W_enc = nn.Parameter(directions * min(1.0, 2 * d_in / d_sae))
        self.W_dec = nn.Parameter(directions.clone())
        self.r_mag = nn.Parameter(torch.zeros(d_sae))
        self.b_gate = nn.Parameter(torch.zeros(d_sae))
        self.b_mag = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    def preactivation(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        return (x - self.b_dec) @ self.W_enc.T + self.b_gate

    def features(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        return self._gated((x - self.b_dec) @ self.W_enc.T)

    def loss(self, x: Float[Tensor, "batch d_in"]) -> Loss:
        """‖x − x̂(f)‖² + λ‖ReLU(π_gate)‖₁ + ‖x − x̂_frozen(ReLU(π_gate))‖², averaged over the batch (equation 8 there)."""
        projected = (x - self.b_dec) @ self.W_enc.T
        gate = F.relu(projected + self.b_gate)
        features = self._gated(projected)
        x_hat = features @ self.W_dec + self.b_dec
        x_hat_frozen = gate @ self.W_dec.detach() + self.b_dec.detach()
        return Loss(
            reconstruction=(x - x_hat).square().sum(dim=1).mean(),
            sparsity=self.lam * gate.sum(dim=1).mean(),
            auxiliary=(x - x_hat_frozen).square().sum(dim=1).mean(),
            fired=(features.detach() > 0).any(dim=0),
        )

    def _gated(self, projected: Float[Tensor, "batch d_sae"]) -> Float[Tensor, "batch d_sae"]:
        fires = projected + self.b_gate > 0
        return fires * F.relu(self.r_mag.exp() * projected + self.b_mag)

    @torch.no_grad()
    def revive(self, dead: Tensor, directions: Float[Tensor, "n_dead d_in"], encoder_norm: float) -> None:
        self.W_dec[dead] = directions
        self.W_enc[dead] = directions * encoder_norm
        for bias in (self.r_mag, self.b_gate, self.b_mag):
            bias[dead] = 0
