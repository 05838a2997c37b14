"""The gate of the target's features: the paper's objective."""

from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.visualization.objectives.base import Objective


class Gate(Objective):
    """W_gate (s·x − b_dec) of raw template x, where s is the SAE's scale (the paper, section 3).

    Where the SAE does not normalize templates, it grows with ‖x‖ alone, so the norm is recorded with it.
    """

    def __call__(self, templates: Float[Tensor, "images d_in"]) -> Float[Tensor, " images"]:
        return self.projected(self.sae.scaled(templates))
