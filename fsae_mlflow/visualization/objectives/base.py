"""The interface of an objective."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.visualization.real_faces.reach import RealTemplates
from fsae_mlflow.visualization.targets import Target, signed_sum


class Objective(ABC):
    """A number for each image, to be maximized: how well its template serves its target.

    Template and target of an image decide its number; the other images do not.
    """

    def __init__(self, sae: SparseAutoencoder, targets: Sequence[Target], real: RealTemplates) -> None:
        self.sae, self.targets, self.real = sae, targets, real
        self.directions = signed_sum(sae.feature_directions, targets)

    @abstractmethod
    def __call__(self, templates: Float[Tensor, "images d_in"]) -> Float[Tensor, " images"]:
        """The objective of raw templates, one for each target."""

    def projected(self, x: Float[Tensor, "images d_in"]) -> Float[Tensor, " images"]:
        """W_enc (x − b_dec) of scaled templates, one for each target, its features added or subtracted."""
        return ((x - self.sae.b_dec) * self.directions).sum(dim=1)

    def activations(self, templates: Float[Tensor, "images d_in"]) -> Float[Tensor, " images"]:
        """How strongly raw templates fire their targets, one for each target."""
        features = self.sae.encode(templates)
        maxima = features.new_tensor(self.real.maxima)
        return torch.stack([one.activation(row, maxima) for one, row in zip(self.targets, features, strict=True)])

    @cached_property
    def largest(self) -> Float[Tensor, " images"]:
        """The largest projection of real faces, of each target."""
        return self.directions.new_tensor([max(self.real.reach[target].largest, 1e-6) for target in self.targets])
