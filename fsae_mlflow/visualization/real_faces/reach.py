"""What the templates of real faces show of the targets: where their mean is, how far they reach, how they vary."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.templates.rows import drawn_rows
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.visualization.targets import Target, signed_sum

N_TEMPLATES = 50_000
MOST_PROJECTIONS = 2**24  # at once, so that many targets need no more memory than few


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The projection W_enc (s·x − b_dec) on a target's summed directions, of real faces: its mean, its standard
    deviation, and the largest.
    """

    mean: float
    std: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class RealTemplates:
    """What images are measured by, of real templates. `mean`: their mean, scaled as the SAE reads them. `mean_norm`:
    their mean norm before that. `reach`: of each target. `maxima`: the largest activation of each feature.
    """

    mean: Float64[np.ndarray, " d_in"]
    mean_norm: float
    reach: Mapping[Target, Reach]
    maxima: Float64[np.ndarray, " d_sae"]

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        templates: TemplateSet,
        sae: SparseAutoencoder,
        targets: Sequence[Target],
        *,
        mean_norm: float,
        maxima: Float64[np.ndarray, " d_sae"],
    ) -> "RealTemplates":
        """Statistics of at most 50,000 templates, of people drawn at random."""
        directions = signed_sum(sae.feature_directions, targets).cpu().double()
        offset = directions @ sae.b_dec.cpu().double()
        n, total = 0, torch.zeros(sae.d_in, dtype=torch.float64)
        sums, squares = torch.zeros(2, len(targets), dtype=torch.float64)
        largest = torch.full((len(targets),), -torch.inf, dtype=torch.float64)
        for x in _scaled(templates, sae, at_once=max(1, MOST_PROJECTIONS // len(targets))):
            projected = x @ directions.T - offset
            n += len(x)
            total += x.sum(dim=0)
            sums += projected.sum(dim=0)
            squares += projected.square().sum(dim=0)
            largest = torch.maximum(largest, projected.amax(dim=0))
        means = sums / n
        stds = (squares / n - means.square()).clamp(min=0).sqrt()
        reach = {
            target: Reach(mean=mean, std=std, largest=most)
            for target, mean, std, most in zip(targets, means.tolist(), stds.tolist(), largest.tolist(), strict=True)
        }
        return cls(mean=(total / n).numpy(), mean_norm=mean_norm, reach=reach, maxima=maxima)


def _scaled(templates: TemplateSet, sae: SparseAutoencoder, *, at_once: int) -> Iterator[Float64[Tensor, "batch d_in"]]:
    drawn = np.zeros(len(templates), bool)
    drawn[drawn_rows(templates.identities, N_TEMPLATES)] = True
    for first, rows, _ in templates.batches():
        for part in torch.from_numpy(rows[drawn[first : first + len(rows)]]).split(at_once):
            yield sae.scaled(part.to(sae.scale.device)).cpu().double()
