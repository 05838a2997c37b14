"""The image itself as parameters: the control that shows what a prior is worth."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsae_mlflow.visualization.parametrizations.base import SIZE, Parametrization, normal

CONTRAST = 0.1


class Pixels(Parametrization):
    """Every pixel is the sigmoid of a parameter, at first gray with a little noise."""

    def __init__(self, generators: Sequence[torch.Generator], *, size: int = SIZE) -> None:
        super().__init__(generators, size=size)
        self.logits = nn.Parameter(CONTRAST * normal(generators, 3, size, size))

    def forward(self) -> Float[Tensor, "images 3 size size"]:
        """The images, RGB in 0…1."""
        return torch.sigmoid(self.logits)
