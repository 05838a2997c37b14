"""The prior that makes a face: the mean face plus whitened principal components of the set's own aligned faces."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsae_mlflow.visualization.parametrizations.base import Parametrization, normal
from fsae_mlflow.visualization.real_faces.prior import FacePrior

NOISE = 0.1
PENALTY = 1.0


class Eigenfaces(Parametrization):
    """mean + Σ c_k σ_k u_k, where u_k are the faces' principal components and σ_k their standard deviations.

    Each c_k stays within the largest |c_k| of real faces (a hyperbolic tangent). The penalty is the mean
    squared distance of c from where it began (`start`).
    """

    needs_prior = True
    default_start = "typical"
    default_steps = 120
    default_lr = 0.06

    mean: Tensor
    scaled_components: Tensor
    limit: Tensor
    begin: Tensor

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        *,
        prior: FacePrior,
        start: Float[Tensor, "images 3 size size"],
    ) -> None:
        super().__init__(generators, size=prior.mean.shape[-1])
        self.register_buffer("mean", prior.mean)
        self.register_buffer("scaled_components", prior.scaled_components)
        self.register_buffer("limit", prior.coefficients.abs().amax(dim=0))
        begin = prior.coefficients_of(start)
        begin = begin.clamp(-0.95 * self.limit, 0.95 * self.limit)
        self.register_buffer("begin", begin)
        self.coefficients = nn.Parameter(
            (begin / self.limit).atanh() * self.limit + NOISE * normal(generators, len(prior.std))
        )

    def forward(self) -> Float[Tensor, "images 3 size size"]:
        """The images, RGB in 0…1."""
        return (self.mean + (self._bounded() @ self.scaled_components).unflatten(1, self.mean.shape)).clamp(0, 1)

    def penalty(self) -> Float[Tensor, " images"]:
        return PENALTY * (self._bounded() - self.begin).square().mean(dim=1)

    def _bounded(self) -> Float[Tensor, "images k"]:
        return self.limit * torch.tanh(self.coefficients / self.limit)
