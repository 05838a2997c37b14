"""Complex Fourier coefficients in decorrelated colors (Mordvintsev et al. 2018), the paper's alternative to pixels."""

from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from fsae_mlflow.faces.aligned import FACE_SIZE
from fsae_mlflow.visualization.parametrizations.base import Parametrization, normal

# Square root of the color covariance of ImageNet, from Lucid; __init__ divides it by its largest column norm.
COLOR = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
CONTRAST = 0.01


class FourierSpectrum(Parametrization):
    """The inverse Fourier transform of coefficients, each divided by four times its frequency, as in Lucid: coarse and
    fine detail then change at the same rate.
    """

    weight: Tensor
    color: Tensor

    def __init__(self, generators: Sequence[torch.Generator], *, size: int = FACE_SIZE) -> None:
        super().__init__(generators, size=size)
        self.spectrum = nn.Parameter(CONTRAST * normal(generators, 3, size, size // 2 + 1, 2))
        frequency = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None])
        self.register_buffer("weight", 0.25 / frequency.clamp(min=1 / size))
        color = torch.tensor(COLOR)
        self.register_buffer("color", color / color.norm(dim=0).max())

    def forward(self) -> Float[Tensor, "images 3 size size"]:
        """The images, RGB in 0…1."""
        return self.colors().sigmoid()

    def colors(self) -> Float[Tensor, "images 3 size size"]:
        """The inverse transform, in RGB, around 0."""
        coefficients: Complex[Tensor, "images 3 size half"] = torch.view_as_complex(self.spectrum) * self.weight
        decorrelated = torch.fft.irfft2(coefficients, s=(self.size, self.size), norm="ortho")
        return torch.einsum("rc,nchw->nrhw", self.color, decorrelated)
