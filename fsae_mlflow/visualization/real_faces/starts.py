"""The images that optimization begins with: the mean face, a real face, or the face that goes with a feature."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.aligned import to_float
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.visualization.real_faces.prior import FacePrior
from fsae_mlflow.visualization.targets import Target, signed_sum

# Of the distance that a real face has from the mean, in standard deviations along all components.
DISTANCE = 0.46


class Starts:
    """The images that targets begin with: `name` is "mean", "typical", or the image_id of a face of the set.

    A typical face shows how faces change, on average, with a target's projection W_enc (s·x − b_dec): the mean face
    plus the correlations of the projection with the faces' components, scaled to one length. It is the classification
    image of psychophysics (Murray, "Classification images: a review", 2011) in whitened components. What goes with the
    feature in the faces is in it, whether the recognizer sees it or not. `confirm`: the rows of the people on whom
    images are judged; typical faces come from the others.

    Raises: UserError for an image_id that the set does not have.
    """

    @torch.no_grad()
    def __init__(
        self,
        name: str,
        *,
        prior: FacePrior,
        templates: TemplateSet,
        sae: SparseAutoencoder,
        confirm: Bool[np.ndarray, " n_rows"],
    ) -> None:
        self.name, self.prior, self.sae = name, prior, sae
        if name == "typical":
            found = ~confirm[prior.rows.numpy()]
            x = torch.tensor(templates.templates_of(prior.rows.numpy()[found]))
            self.x = torch.cat([sae.scaled(part.to(sae.scale.device)).cpu() for part in x.split(4096)])
            self.x -= self.x.mean(dim=0)
            coefficients = prior.coefficients[torch.from_numpy(found)]
            self.coefficients = coefficients - coefficients.mean(dim=0)
        elif name != "mean":
            self.face = _face(name, templates)

    @torch.no_grad()
    def __call__(self, targets: Sequence[Target]) -> Float[Tensor, "targets 3 h w"]:
        """The image of each target."""
        if self.name == "mean":
            return self.prior.mean.expand(len(targets), -1, -1, -1)
        if self.name != "typical":
            return self.face.expand(len(targets), -1, -1, -1)
        projected = self.x @ signed_sum(self.sae.feature_directions, targets).cpu().T
        correlations = projected.T @ self.coefficients
        length = DISTANCE * len(self.prior.std) ** 0.5
        scaled = correlations * (length / correlations.norm(dim=1, keepdim=True).clamp(min=1e-12)) * self.prior.std
        return (self.prior.mean + torch.einsum("nk,kchw->nchw", scaled, self.prior.components)).clamp(0, 1)


def _face(image_id: str, templates: TemplateSet) -> Float[Tensor, "1 3 h w"]:
    try:
        row = templates.image_ids.index(image_id)
    except ValueError:
        raise UserError(
            f"start must be typical, mean, or the image_id of a face of the template set; {image_id!r} is none of its "
            f"{len(templates):,}, which begin with {templates.image_ids[0]!r}."
        ) from None
    return to_float(np.array(templates.faces([row])[0])[None])
