"""The activation of the target's features, as shares of the largest of real faces."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.visualization.objectives.base import Objective
from fsae_mlflow.visualization.real_faces.reach import RealTemplates
from fsae_mlflow.visualization.targets import Target

LEAD = 0.1


class Activation(Objective):
    """Σ ± f / max f + 0.1 p / max p: f is a feature as the SAE encodes it, p the target's projection
    W_enc (s·x − b_dec), and max is that of real faces.

    A feature that does not fire has no gradient; its projection leads to where it fires.
    """

    def __init__(self, sae: SparseAutoencoder, targets: Sequence[Target], real: RealTemplates) -> None:
        super().__init__(sae, targets, real)
        self.weights = torch.zeros(len(targets), sae.d_sae, device=sae.scale.device)
        for row, target in enumerate(targets):
            for feature, sign in target.signed:
                self.weights[row, feature] = sign / max(float(real.maxima[feature]), 1e-6)

    def __call__(self, templates: Float[Tensor, "images d_in"]) -> Float[Tensor, " images"]:
        x = self.sae.scaled(templates)
        return (self.sae.features(x) * self.weights).sum(dim=1) + LEAD * self.projected(x) / self.largest
