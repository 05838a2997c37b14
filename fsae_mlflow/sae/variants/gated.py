"""The gated SAE of Rajamanoharan et al. 2024 (arXiv 2404.16014), with tied gate and magnitude weights."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.terms import Activations, Expand, SaelensForm


class GatedSAE(SparseAutoencoder):
    """A gate decides which features fire, a magnitude path with the same directions how strongly.

        π_gate = W_gate (x − b_dec) + b_gate
        π_mag  = exp(r_mag) ⊙ W_gate (x − b_dec) + b_mag
        f      = 1[π_gate > 0] ⊙ ReLU(π_mag)
        x̂      = W_dec f + b_dec
        loss   = ‖x − x̂(f)‖² + λ‖ReLU(π_gate)‖₁ + ‖x − x̂_frozen(ReLU(π_gate))‖²   (equation 8 there)

    `W_enc` is W_gate; `W_dec` holds one decoder direction a row (a column in the paper). With decoder_norm "weighted"
    the rows' norms are free and weight the L1 term, and no term freezes the decoder.
    """

    feature_parameters = ("r_mag", "b_gate", "b_mag")
    r_mag: Float[nn.Parameter, " d_sae"]
    b_gate: Float[nn.Parameter, " d_sae"]
    b_mag: Float[nn.Parameter, " d_sae"]

    def activations(
        self, p: Float[Tensor, "..."], expand: Expand, norms: Float[Tensor, " d_sae"] | None
    ) -> Activations:
        gate = F.relu(p + expand(self.b_gate))
        features = (gate > 0) * F.relu(expand(self.r_mag).exp() * p + expand(self.b_mag))
        return Activations(features, gate, (gate if norms is None else gate * expand(norms)).sum())

    def firing_level(self) -> Float[Tensor, " d_sae"]:
        return -self.b_gate

    @property
    def unit_decoder(self) -> bool:
        return self.settings.decoder_norm == "held"

    @property
    def auxiliary_is_frozen(self) -> bool:
        return self.unit_decoder

    def auxiliary_target(
        self, x: Float[Tensor, "batch d_in"], x_hat: Float[Tensor, "batch d_in"]
    ) -> Float[Tensor, "batch d_in"]:
        return x - (self.b_dec.detach() if self.auxiliary_is_frozen else self.b_dec)

    def saelens(self) -> SaelensForm:
        return SaelensForm("gated", {"r_mag": self.r_mag, "b_gate": self.b_gate, "b_mag": self.b_mag})
