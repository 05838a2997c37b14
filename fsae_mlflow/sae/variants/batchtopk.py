"""The batch top-k SAE: a batch shares its places (Bussmann et al. 2024, arXiv 2412.06410)."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.sae.terms import Competition, Loss, SaelensForm
from fsae_mlflow.sae.variants.settings import TopKSettings
from fsae_mlflow.sae.variants.topk import TopKSAE

THRESHOLD_DECAY = 0.99


class BatchTopKSAE(TopKSAE):
    """In training, the k · batch largest features of the whole batch fire.

    `threshold` is a running mean over training steps of the least activation that fired. Outside training the features
    above it fire, so that a template's features do not depend on the rest of its batch.
    """

    threshold: Tensor

    def __init__(self, d_in: int, d_sae: int, settings: TopKSettings, **shared: object) -> None:
        super().__init__(d_in, d_sae, settings, **shared)
        self.register_buffer("threshold", torch.tensor(-1.0))

    @property
    def competition(self) -> Competition:
        return replace(super().competition, shared=True)

    def firing_level(self) -> Float[Tensor, " d_sae"]:
        return self.threshold.clamp(min=0) - self.b_enc

    def floor(self) -> Float[Tensor, " d_sae"]:
        return -self.b_enc

    def in_use(
        self, activations: Float[Tensor, "batch d_sae"], projected: Float[Tensor, "batch d_sae"]
    ) -> Float[Tensor, "batch d_sae"]:
        return activations * (activations > self.threshold)

    @torch.no_grad()
    def after_step(self, loss: Loss) -> None:
        # Without `if`: each number read from a GPU makes the CPU wait for it.
        mean = torch.where(self.threshold < 0, loss.least, self.threshold.lerp(loss.least, 1 - THRESHOLD_DECAY))
        self.threshold.copy_(torch.where(loss.least.isfinite(), mean, self.threshold))

    def saelens(self) -> SaelensForm:
        # SAELens has no batch top-k for inference; above a threshold it is a JumpReLU SAE.
        threshold = self.threshold.clamp(min=0).expand(self.d_sae)
        return SaelensForm("jumprelu", {"b_enc": self.b_enc, "threshold": threshold})
