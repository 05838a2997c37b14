"""The gated sparse autoencoder of Rajamanoharan et al. 2024 (arXiv 2404.16014), with tied gate and magnitude
weights.
"""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from fsae_mlflow.sae.base import Activations, PerEntry, SparseAutoencoder


class GatedSAE(SparseAutoencoder):
    """Which features fire is decided by a gate, how strongly by a magnitude path with the same directions.

        π_gate = W_gate (x − b_dec) + b_gate
        π_mag  = exp(r_mag) ⊙ W_gate (x − b_dec) + b_mag
        f      = 1[π_gate > 0] ⊙ ReLU(π_mag)
        x̂      = W_dec f + b_dec
        loss   = ‖x − x̂(f)‖² + λ‖ReLU(π_gate)‖₁ + ‖x − x̂_frozen(ReLU(π_gate))‖²   (equation 8 there)

    `W_enc` is W_gate; `W_dec` holds one decoder direction a row (the paper's columns). With decoder_norm "weighted" the
    rows' norms are free and weight the L1 term, and the decoder is frozen in no term.
    """

    variant = "gated"
    feature_parameters = ("r_mag", "b_gate", "b_mag")
    r_mag: Float[nn.Parameter, " d_sae"]
    b_gate: Float[nn.Parameter, " d_sae"]
    b_mag: Float[nn.Parameter, " d_sae"]

    @classmethod
    def options(cls, settings: Any) -> dict[str, Any]:
        return {"lam": settings.lam, "decoder_norm": "weighted" if settings.decoder_norm == "weighted" else "held"}

    def codes(self, p: Float[Tensor, "..."], of: PerEntry, norms: Float[Tensor, " d_sae"] | None) -> Activations:
        gate = F.relu(p + of(self.b_gate))
        features = (gate > 0) * F.relu(of(self.r_mag).exp() * p + of(self.b_mag))
        return Activations(features, gate, (gate if norms is None else gate * of(norms)).sum())

    def firing_level(self) -> Float[Tensor, " d_sae"]:
        return -self.b_gate

    def auxiliary(
        self,
        x: Float[Tensor, "batch d_in"],
        projected: Float[Tensor, "batch d_sae"],
        codes: Activations,
        x_hat: Float[Tensor, "batch d_in"],
        dead: Bool[Tensor, " d_sae"] | None,
    ) -> Float[Tensor, ""]:
        assert codes.gate is not None
        frozen = self.decoder_norm == "held"
        W_dec, b_dec = (self.W_dec.detach(), self.b_dec.detach()) if frozen else (self.W_dec, self.b_dec)
        return (x - codes.gate @ W_dec - b_dec).square().sum(dim=1).mean()
