"""The JumpReLU SAE: a learned threshold for each feature, L0 penalized directly (Rajamanoharan et al. 2024, arXiv
2407.14435).
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.terms import Activations, Expand, SaelensForm
from fsae_mlflow.sae.variants.settings import JumpReluSettings


class JumpReluSAE(SparseAutoencoder):
    """z = W_enc (x − b_dec) + b_enc, f = z · 1[z > θ], loss = ‖x − x̂‖² + λ Σ_i 1[z_i > θ_i].

    θ = exp(log_threshold) learns through a rectangle of width `bandwidth` around it (equations 11 and 12 there); z
    gets no gradient from the step function itself.
    """

    feature_parameters = ("b_enc", "log_threshold")
    b_enc: Float[nn.Parameter, " d_sae"]
    log_threshold: Float[nn.Parameter, " d_sae"]

    def __init__(self, d_in: int, d_sae: int, settings: JumpReluSettings, **shared: object) -> None:
        super().__init__(d_in, d_sae, settings, **shared)  # pyright: ignore[reportArgumentType]
        self._reset_thresholds(slice(None))

    def activations(
        self, p: Float[Tensor, "..."], expand: Expand, norms: Float[Tensor, " d_sae"] | None
    ) -> Activations:
        z, threshold, width = p + expand(self.b_enc), expand(self.log_threshold).exp(), self.settings.bandwidth
        return Activations(_Jump.apply(z, threshold, width), None, _Step.apply(z, threshold, width).sum())

    def firing_level(self) -> Float[Tensor, " d_sae"]:
        return self.log_threshold.exp() - self.b_enc

    def floor(self) -> Float[Tensor, " d_sae"]:
        return self.firing_level() - self.settings.bandwidth / 2

    @torch.no_grad()
    def revive(self, dead: Tensor, directions: Float[Tensor, "n_dead d_in"], encoder_norm: float) -> None:
        super().revive(dead, directions, encoder_norm)
        self._reset_thresholds(dead)

    @torch.no_grad()
    def _reset_thresholds(self, features: Tensor | slice) -> None:
        self.log_threshold[features] = math.log(self.settings.initial_threshold)

    def saelens(self) -> SaelensForm:
        return SaelensForm("jumprelu", {"b_enc": self.b_enc, "threshold": self.log_threshold.exp()})


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return z * (z > threshold)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        z, threshold = ctx.saved_tensors
        near = (z - threshold).abs() < ctx.bandwidth / 2
        to_threshold = -threshold / ctx.bandwidth * near * gradient
        return gradient * (z > threshold), to_threshold.sum_to_size(threshold.shape), None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return (z > threshold).to(z.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        z, threshold = ctx.saved_tensors
        near = (z - threshold).abs() < ctx.bandwidth / 2
        return None, (-gradient * near / ctx.bandwidth).sum_to_size(threshold.shape), None
