"""The ReLU SAE: a ReLU encoder under an L1 penalty (Bricken et al. 2023; Conerly et al. 2024)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.terms import Activations, Expand, SaelensForm


class ReluSAE(SparseAutoencoder):
    """f = ReLU(W_enc (x − b_dec) + b_enc), loss = ‖x − x̂‖² + λ Σ_i f_i ‖d_i‖.

    By default the decoder rows d_i are free and their norms weight the penalty; with decoder_norm "held" they have unit
    norm.
    """

    feature_parameters = ("b_enc",)
    b_enc: Float[nn.Parameter, " d_sae"]

    def activations(
        self, p: Float[Tensor, "..."], expand: Expand, norms: Float[Tensor, " d_sae"] | None
    ) -> Activations:
        features = F.relu(p + expand(self.b_enc))
        return Activations(features, None, (features if norms is None else features * expand(norms)).sum())

    def firing_level(self) -> Float[Tensor, " d_sae"]:
        return -self.b_enc

    @property
    def unit_decoder(self) -> bool:
        return self.settings.decoder_norm == "held"

    def saelens(self) -> SaelensForm:
        return SaelensForm("standard", {"b_enc": self.b_enc})
