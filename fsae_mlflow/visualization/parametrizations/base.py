"""The interface of a parametrization of images."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsae_mlflow.faces.aligned import FACE_SIZE


class Parametrization(nn.Module, ABC):
    """One image of `size` × `size` pixels per generator, each a function of parameters of its own.

    Image i uses random numbers of generators[i] alone and depends on no other image, so it is the same whichever images
    are made with it. A class with `needs_prior` takes the keyword `prior`, what faces of the template set look like
    (FacePrior); one with a `default_start` takes `start`, the image that each begins with.
    """

    needs_prior: ClassVar[bool] = False
    # What images begin with, as in the setting `start`; empty: what the parametrization makes of random numbers.
    default_start: ClassVar[str] = ""
    # The steps and the learning rate where the settings leave them to the parametrization.
    default_steps: ClassVar[int] = 128
    default_lr: ClassVar[float] = 3e-3

    def __init__(self, generators: Sequence[torch.Generator], *, size: int = FACE_SIZE) -> None:
        super().__init__()
        self.n_images = len(generators)
        self.size = size

    @abstractmethod
    def forward(self) -> Float[Tensor, "images 3 size size"]:
        """The images, RGB in 0…1."""

    def penalty(self) -> Float[Tensor, " images"]:
        """What is subtracted from each image's objective, so that the image stays plausible; by default nothing."""
        return torch.zeros(self.n_images, device=next(self.parameters()).device)


def normal(generators: Sequence[torch.Generator], *shape: int) -> Float[Tensor, "images ..."]:
    """Standard normal numbers of `shape` from every generator, drawn on the CPU: the same for every device."""
    return torch.stack([torch.randn(*shape, generator=generator) for generator in generators])
