"""The vanilla sparse autoencoder: a ReLU encoder under an L1 penalty (Bricken et al. 2023; Conerly et al. 2024)."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fsae_mlflow.sae.base import Activations, PerEntry, SparseAutoencoder


class ReluSAE(SparseAutoencoder):
    """f = ReLU(W_enc (x − b_dec) + b_enc), loss = ‖x − x̂‖² + λ Σ_i f_i ‖d_i‖.

    By default the decoder rows d_i are free and their norms weight the penalty; with decoder_norm "held" they are of
    unit norm.
    """

    variant = "relu"
    feature_parameters = ("b_enc",)
    b_enc: Float[nn.Parameter, " d_sae"]

    @classmethod
    def options(cls, settings: Any) -> dict[str, Any]:
        return {"lam": settings.lam, "decoder_norm": "held" if settings.decoder_norm == "held" else "weighted"}

    def codes(self, p: Float[Tensor, "..."], of: PerEntry, norms: Float[Tensor, " d_sae"] | None) -> Activations:
        features = F.relu(p + of(self.b_enc))
        return Activations(features, None, (features if norms is None else features * of(norms)).sum())

    def firing_level(self) -> Float[Tensor, " d_sae"]:
        return -self.b_enc
