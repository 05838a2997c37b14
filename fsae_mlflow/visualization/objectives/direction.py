"""The direction that the target's features write, reached as far as real faces reach it and little farther."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.visualization.objectives.base import Objective
from fsae_mlflow.visualization.real_faces.reach import RealTemplates
from fsae_mlflow.visualization.targets import Target, signed_sum

ENOUGH, TOO_FAR = 1.1, 1.6
EXCESS_WEIGHT = 2.0


class Direction(Objective):
    """cos(s·x − mean, Σ ± W_dec / ‖W_dec‖) + min(r, 1.1) − 2 ReLU(r − 1.6) − (‖x‖ / mean ‖x‖ − 1)².

    r is the projection W_enc (s·x − b_dec) of the target, divided by the largest of real faces. The cosine asks for the
    target and nothing else; r sees to it that the feature fires as for the strongest real face, and no harder than a
    face could; the last term holds the norm to real faces'.
    """

    def __init__(self, sae: SparseAutoencoder, targets: Sequence[Target], real: RealTemplates) -> None:
        super().__init__(sae, targets, real)
        self.mean = sae.b_dec.new_tensor(real.mean)
        self.decoder = signed_sum(F.normalize(sae.W_dec, dim=1), targets)

    def __call__(self, templates: Float[Tensor, "images d_in"]) -> Float[Tensor, " images"]:
        x = self.sae.scaled(templates)
        reach = self.projected(x) / self.largest
        norm = templates.norm(dim=1) / self.real.mean_norm
        return (
            F.cosine_similarity(x - self.mean, self.decoder)
            + reach.clamp(max=ENOUGH)
            - EXCESS_WEIGHT * F.relu(reach - TOO_FAR)
            - (norm - 1).square()
        )
