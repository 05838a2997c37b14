"""The interface of a parametrization of images."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsae_mlflow.faces.aligned import FACE_SIZE


class Parametrization(nn.Module, ABC):
    """One image of `size` × `size` pixels per generator, each a function of parameters of its own.

    Image i uses random numbers of generators[i] alone and depends on no other image, so it is the same whichever images
    are made with it.
    """

    def __init__(self, generators: Sequence[torch.Generator], *, size: int = FACE_SIZE) -> None:
        super().__init__()
        self.n_images = len(generators)
        self.size = size

    @abstractmethod
    def forward(self) -> Float[Tensor, "images 3 size size"]:
        """The images, RGB in 0…1."""


def normal(generators: Sequence[torch.Generator], *shape: int) -> Float[Tensor, "images ..."]:
    """Standard normal numbers of `shape` from every generator, drawn on the CPU: the same for every device."""
    return torch.stack([torch.randn(*shape, generator=generator) for generator in generators])
