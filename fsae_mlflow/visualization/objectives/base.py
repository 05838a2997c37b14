"""The interface of an objective."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.visualization.real_faces.reach import RealTemplates
from fsae_mlflow.visualization.targets import Target


class Objective(ABC):
    """A number for each image, to be maximized: how well its template serves its target.

    Template and target of an image decide its number; the other images do not.
    """

    def __init__(self, sae: SparseAutoencoder, targets: Sequence[Target], real: RealTemplates) -> None:
        self.sae, self.targets, self.real = sae, targets, real

    @abstractmethod
    def __call__(self, templates: Float[Tensor, "images d_in"]) -> Float[Tensor, " images"]:
        """The objective of raw templates, one for each target."""
