"""JumpReLU sparse autoencoder: a learned threshold a feature, L0 penalized directly (Rajamanoharan et al. 2024, arXiv
2407.14435).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fsae_mlflow.sae.base import Activations, PerEntry, SparseAutoencoder


class JumpReluSAE(SparseAutoencoder):
    """z = W_enc (x − b_dec) + b_enc, f = z · 1[z > θ], loss = ‖x − x̂‖² + λ Σ_i 1[z_i > θ_i].

    θ = exp(log_threshold) learns through a rectangle of width `bandwidth` around it (equations 11 and 12 there); z
    gets no gradient from the steps themselves.
    """

    variant = "jumprelu"
    feature_parameters = ("b_enc", "log_threshold")
    b_enc: Float[nn.Parameter, " d_sae"]
    log_threshold: Float[nn.Parameter, " d_sae"]

    def __init__(
        self, d_in: int, d_sae: int, *, bandwidth: float = 0.01, initial_threshold: float = 0.01, **shared: Any
    ) -> None:
        super().__init__(d_in, d_sae, **shared)
        self.bandwidth = bandwidth
        self.initial_threshold = initial_threshold
        with torch.no_grad():
            self.log_threshold.fill_(torch.tensor(initial_threshold).log())

    @classmethod
    def options(cls, settings: Any) -> dict[str, Any]:
        return {"lam": settings.lam, "bandwidth": settings.bandwidth}

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return super().hyperparameters | {"bandwidth": self.bandwidth, "initial_threshold": self.initial_threshold}

    def codes(self, p: Float[Tensor, "..."], of: PerEntry, norms: Float[Tensor, " d_sae"] | None) -> Activations:
        z, threshold = p + of(self.b_enc), of(self.log_threshold).exp()
        return Activations(
            _Jump.apply(z, threshold, self.bandwidth), None, _Step.apply(z, threshold, self.bandwidth).sum()
        )

    def firing_level(self) -> Float[Tensor, " d_sae"]:
        return self.log_threshold.exp() - self.b_enc

    def floor(self) -> Float[Tensor, " d_sae"]:
        return self.firing_level() - self.bandwidth / 2

    @torch.no_grad()
    def revive(self, dead: Tensor, directions: Float[Tensor, "n_dead d_in"], encoder_norm: float) -> None:
        super().revive(dead, directions, encoder_norm)
        self.log_threshold[dead] = torch.tensor(self.initial_threshold, dtype=self.log_threshold.dtype).log()


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
