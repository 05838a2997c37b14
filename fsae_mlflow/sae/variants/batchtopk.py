"""Batch top-k sparse autoencoder: a batch shares its places (Bussmann et al. 2024, arXiv 2412.06410)."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from fsae_mlflow.sae.base import Loss
from fsae_mlflow.sae.variants.topk import TopKSAE

THRESHOLD_DECAY = 0.99


class BatchTopKSAE(TopKSAE):
    """Top-k with the k · batch largest features of the whole batch in training.

    `threshold` follows the least activation that fired, as a running mean over training steps; outside training the
    features above it fire, so a template's features do not depend on its neighbors.
    """

    variant = "batchtopk"
    threshold: Tensor

    def __init__(self, d_in: int, d_sae: int, **options: Any) -> None:
        super().__init__(d_in, d_sae, **options)
        self.register_buffer("threshold", torch.tensor(-1.0))

    @property
    def rows_in_competition(self) -> int | None:
        return None

    def firing_level(self) -> Float[Tensor, " d_sae"]:
        return self.threshold.clamp(min=0) - self.b_enc

    def floor(self) -> Float[Tensor, " d_sae"]:
        return -self.b_enc

    def features(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        activations = F.relu(self.projected(x) + self.b_enc)
        return activations * (activations > self.threshold)

    def _largest(self, activations: Float[Tensor, "batch d_sae"]) -> Bool[Tensor, "batch d_sae"]:
        chosen = activations.flatten().topk(self.k * len(activations)).indices
        return torch.zeros_like(activations, dtype=torch.bool).flatten().scatter_(0, chosen, True).view_as(activations)

    @torch.no_grad()
    def after_step(self, loss: Loss) -> None:
        if not torch.isfinite(loss.least):
            return
        self.threshold.copy_(loss.least if self.threshold < 0 else self.threshold.lerp(loss.least, 1 - THRESHOLD_DECAY))
