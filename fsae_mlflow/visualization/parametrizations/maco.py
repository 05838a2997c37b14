"""Phase only: the magnitude of the Fourier spectrum is the mean of real faces (MACO, Fel et al. 2023, 2306.06805)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsae_mlflow.visualization.parametrizations.base import Parametrization, normal
from fsae_mlflow.visualization.real_faces.prior import FacePrior

CONTRAST = 4.0


class MagnitudeConstrained(Parametrization):
    """The inverse Fourier transform of magnitudes that stay as they are and phases that are optimized, random at first.

    The sum of all pixels keeps the phase 0, so that the image keeps the faces' mean color.
    """

    needs_prior = True
    default_steps = 256
    default_lr = 0.1

    magnitude: Tensor

    def __init__(self, generators: Sequence[torch.Generator], *, prior: FacePrior) -> None:
        super().__init__(generators, size=prior.mean.shape[-1])
        self.register_buffer("magnitude", prior.magnitude)
        self.phase = nn.Parameter(torch.pi * normal(generators, *self.magnitude.shape))

    def forward(self) -> Float[Tensor, "images 3 size size"]:
        """The images, RGB in 0…1."""
        sum_of_pixels = torch.zeros_like(self.magnitude)
        sum_of_pixels[:, 0, 0] = 1
        spectrum = torch.polar(self.magnitude.expand_as(self.phase), self.phase * (1 - sum_of_pixels))
        height, half = self.magnitude.shape[1:]
        pixels = torch.fft.irfft2(spectrum, s=(height, 2 * (half - 1)), norm="ortho")
        return (CONTRAST * (pixels - 0.5)).sigmoid()
