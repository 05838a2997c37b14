"""One parameter per pixel and color: the control without a prior."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsae_mlflow.faces.aligned import FACE_SIZE
from fsae_mlflow.visualization.parametrizations.base import Parametrization, normal

CONTRAST = 0.1


class Pixels(Parametrization):
    """Every color value is the sigmoid of a parameter; the start is gray with weak noise."""

    def __init__(self, generators: Sequence[torch.Generator], *, size: int = FACE_SIZE) -> None:
        super().__init__(generators, size=size)
        self.logits = nn.Parameter(CONTRAST * normal(generators, 3, size, size))

    def forward(self) -> Float[Tensor, "images 3 size size"]:
        """The images, RGB in 0…1."""
        return torch.sigmoid(self.logits)
