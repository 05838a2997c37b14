"""A real or mean face, moved as little as possible (accentuation, Fel et al. 2023, arXiv 2306.06805)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.visualization.parametrizations.base import Parametrization
from fsae_mlflow.visualization.parametrizations.fourier import FourierSpectrum

PENALTY = 100.0


class Accentuated(Parametrization):
    """`start` plus a change that is written as Fourier coefficients, clipped to 0…1.

    The penalty is 100 times the mean squared change of a pixel: 1 for a change of 0.1.
    """

    default_start = "mean"
    default_steps = 128
    default_lr = 3e-3

    begin: Tensor

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        *,
        start: Float[Tensor, "images 3 size size"],
    ) -> None:
        super().__init__(generators, size=start.shape[-1])
        self.register_buffer("begin", start)
        self.change = FourierSpectrum(generators, size=self.size)

    def forward(self) -> Float[Tensor, "images 3 size size"]:
        """The images, RGB in 0…1."""
        return (self.begin + self.change.colors()).clamp(0, 1)

    def penalty(self) -> Float[Tensor, " images"]:
        return PENALTY * self.change.colors().square().mean(dim=(1, 2, 3))
