"""A dictionary whose directions are computed, not trained: principal or independent components, centroids, pursuit."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.terms import Activations, Expand, SaelensForm


class ComputedSAE(SparseAutoencoder):
    """z = W_enc (x − b_dec) + b_enc, f = ReLU(z) · 1[z > θ], loss = ‖x − x̂‖², with the same θ for all features.

    The form of a JumpReLU SAE. sae/training/computed.py says what the weights are.
    """

    feature_parameters = ("b_enc", "threshold")
    b_enc: Float[nn.Parameter, " d_sae"]
    threshold: Float[nn.Parameter, " d_sae"]

    def activations(
        self, p: Float[Tensor, "..."], expand: Expand, norms: Float[Tensor, " d_sae"] | None
    ) -> Activations:
        z = p + expand(self.b_enc)
        return Activations(F.relu(z) * (z > expand(self.threshold)), None, p.new_zeros(()))

    def firing_level(self) -> Float[Tensor, " d_sae"]:
        return self.threshold.clamp(min=0) - self.b_enc

    @property
    def unit_decoder(self) -> bool:
        return False

    def saelens(self) -> SaelensForm:
        return SaelensForm("jumprelu", {"b_enc": self.b_enc, "threshold": self.threshold})
