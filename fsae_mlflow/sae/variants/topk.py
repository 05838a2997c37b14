"""Top-k sparse autoencoder: the k largest features of each template fire (Gao et al. 2024, arXiv 2406.04093)."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from fsae_mlflow.sae.base import Activations, PerEntry, SparseAutoencoder


class TopKSAE(SparseAutoencoder):
    """f = TopK(ReLU(W_enc (x − b_dec) + b_enc)), loss = ‖x − x̂‖² + α ‖(x − x̂) − ê‖².

    ê decodes the k_aux largest dead features of each template, without b_dec, and x − x̂ is without gradient there: dead
    features learn what the alive ones leave unexplained (appendix A.2 there; here not divided by the error's variance).
    """

    variant = "topk"
    revival = "auxiliary"
    feature_parameters = ("b_enc",)
    b_enc: Float[nn.Parameter, " d_sae"]

    def __init__(
        self, d_in: int, d_sae: int, *, k: int = 32, k_aux: int | None = None, aux_weight: float = 1 / 32, **shared: Any
    ) -> None:
        super().__init__(d_in, d_sae, **shared)
        if k > d_sae:
            raise ValueError(f"k must be at most the number of features, {d_sae}; it is {k}.")
        self.k = k
        self.k_aux = k_aux or max(1, d_in // 2)
        self.aux_weight = aux_weight

    @classmethod
    def options(cls, settings: Any) -> dict[str, Any]:
        return {"k": settings.k, "aux_weight": settings.aux_weight}

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return super().hyperparameters | {"k": self.k, "k_aux": self.k_aux, "aux_weight": self.aux_weight}

    @property
    def rows_in_competition(self) -> int | None:
        """Templates that share their places among each other: one here; None for the whole batch."""
        return 1

    def initial_encoder_norm(self) -> float:
        # Few fire from the start, so the encoder can be the decoder.
        return 1.0

    def codes(self, p: Float[Tensor, "..."], of: PerEntry, norms: Float[Tensor, " d_sae"] | None) -> Activations:
        return Activations(F.relu(p + of(self.b_enc)), None, p.new_zeros(()))

    def firing_level(self) -> Float[Tensor, " d_sae"]:
        return -self.b_enc

    def features(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        activations = F.relu(self.projected(x) + self.b_enc)
        return activations * self._largest(activations)

    @torch.no_grad()
    def kept(self, projected: Float[Tensor, "batch d_sae"]) -> Bool[Tensor, "batch d_sae"]:
        return self._largest(projected + self.b_enc)

    def _largest(self, activations: Float[Tensor, "batch d_sae"]) -> Bool[Tensor, "batch d_sae"]:
        chosen = activations.topk(self.k, dim=1).indices
        return torch.zeros_like(activations, dtype=torch.bool).scatter_(1, chosen, True)

    def auxiliary(
        self,
        x: Float[Tensor, "batch d_in"],
        projected: Float[Tensor, "batch d_sae"],
        codes: Activations,
        x_hat: Float[Tensor, "batch d_in"],
        dead: Bool[Tensor, " d_sae"] | None,
    ) -> Float[Tensor, ""]:
        if dead is None or not dead.any():
            return x.new_zeros(())
        activations = codes.features[:, dead]
        largest = activations.topk(min(self.k_aux, activations.shape[1]), dim=1)
        estimate = torch.zeros_like(activations).scatter(1, largest.indices, largest.values) @ self.W_dec[dead]
        return self.aux_weight * (x - x_hat - estimate).square().sum(dim=1).mean()
