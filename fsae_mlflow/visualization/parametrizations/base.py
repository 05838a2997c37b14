"""What a parametrization of images is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

SIZE = 112


class Parametrization(nn.Module, ABC):
    """As many images as generators, each a function of parameters of its own.

    Image i is drawn from generators[i] alone and depends on no other image, so it comes out the same in any company.
    """

    def __init__(self, generators: Sequence[torch.Generator], *, size: int = SIZE) -> None:
        super().__init__()
        self.n_images = len(generators)
        self.size = size

    @abstractmethod
    def forward(self) -> Float[Tensor, "images 3 size size"]:
        """The images, RGB in 0…1."""


def normal(generators: Sequence[torch.Generator], *shape: int) -> Float[Tensor, "images ..."]:
    """Standard normal numbers of `shape` for every generator, drawn on the CPU so that they are the same for every
    device.
    """
    return torch.stack([torch.randn(*shape, generator=generator) for generator in generators])
