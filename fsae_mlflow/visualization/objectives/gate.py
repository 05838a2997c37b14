"""The gate of the target's features: the paper's objective."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.visualization.objectives.base import Objective
from fsae_mlflow.visualization.real_faces.reach import RealTemplates
from fsae_mlflow.visualization.targets import Target, signed_sum


class Gate(Objective):
    """W_gate (s·x − b_dec) of raw template x, where s is the SAE's scale (the paper, section 3).

    Where the SAE does not normalize templates, it grows with ‖x‖ alone, so the norm is recorded with it.
    """

    def __init__(self, sae: SparseAutoencoder, targets: Sequence[Target], real: RealTemplates) -> None:
        super().__init__(sae, targets, real)
        self.directions = signed_sum(sae.feature_directions, targets)

    def __call__(self, templates: Float[Tensor, "images d_in"]) -> Float[Tensor, " images"]:
        return ((self.sae.scaled(templates) - self.sae.b_dec) * self.directions).sum(dim=1)
