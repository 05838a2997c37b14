"""How often each feature of an SAE fires, and the two clusters that the paper finds in it (figure 2)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from fsae_mlflow.sae.base import SparseAutoencoder

# Counts of 1 and 2 lie 0.30 decades apart: a kernel this wide joins such neighbors, so that counting makes no cluster.
NARROWEST_KERNEL = 0.15
DEEPEST_VALLEY = 0.5
SMALLEST_CLUSTER = 0.005


@dataclass(frozen=True, kw_only=True)
class Survey:
    """How one template set fires the features of an SAE.

    `counts`: templates that fire each feature. `maxima` and `sums`: its largest activation and the sum of all.
    """

    n: int
    counts: Int64[np.ndarray, " d_sae"]
    maxima: Float32[np.ndarray, " d_sae"]
    sums: Float64[np.ndarray, " d_sae"]

    @property
    def density(self) -> Float64[np.ndarray, " d_sae"]:
        """Share of the templates, 0…1, that fire each feature."""
        return self.counts / self.n

    @property
    def l0(self) -> float:
        """Mean number of features that a template fires: the sum of the densities."""
        return float(self.counts.sum() / self.n)

    @property
    def alive(self) -> float:
        """Share of features that at least one template fires."""
        return float((self.counts > 0).mean())


def encoded(
    sae: SparseAutoencoder, templates: Float32[np.ndarray, "n d_in"], *, batch_size: int
) -> Iterator[Float[Tensor, "batch d_sae"]]:
    """The features of raw templates batch by batch, on the SAE's device; memory is a few times batch_size · d_sae
    numbers.

    Raises: ValueError where the templates are not as wide as the SAE's input.
    """
    for first in range(0, len(templates), batch_size):
        with torch.no_grad():
            yield sae.encode(torch.from_numpy(templates[first : first + batch_size]).to(sae.W_dec.device))


def survey(sae: SparseAutoencoder, templates: Float32[np.ndarray, "n d_in"], *, batch_size: int = 512) -> Survey:
    """Count, in one pass, how often and how strongly raw templates fire each feature.

    Raises: ValueError without templates, or where they are not as wide as the SAE's input.
    """
    if len(templates) == 0:
        raise ValueError("templates: the set is empty, so no feature can be counted; extract some faces first.")
    device = sae.W_dec.device
    counts = torch.zeros(sae.d_sae, dtype=torch.int64, device=device)
    sums = torch.zeros(sae.d_sae, dtype=torch.float64, device=device)
    maxima = torch.zeros(sae.d_sae, device=device)
    for features in encoded(sae, templates, batch_size=batch_size):
        counts += (features > 0).sum(dim=0)
        sums += features.sum(dim=0)
        maxima = torch.maximum(maxima, features.amax(dim=0))
    return Survey(n=len(templates), counts=counts.cpu().numpy(), maxima=maxima.cpu().numpy(), sums=sums.cpu().numpy())


def densities(
    sae: SparseAutoencoder, templates: Float32[np.ndarray, "n d_in"], *, batch_size: int = 512
) -> Float64[np.ndarray, " d_sae"]:
    """Share of raw templates, 0…1, that fire each feature.

    Raises: ValueError without templates, or where they are not as wide as the SAE's input.
    """
    return survey(sae, templates, batch_size=batch_size).density


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Alive features split by density: `low` up to `split`, `high` above it; dead features are in neither.

    `separated` says whether the densities have a valley there. Where they have none the split is a convention.
    """

    low: Bool[np.ndarray, " d_sae"]
    high: Bool[np.ndarray, " d_sae"]
    split: float
    separated: bool

    @property
    def n_dead(self) -> int:
        """Features that never fire."""
        return len(self.low) - int(self.low.sum()) - int(self.high.sum())


def clusters(density: Float64[np.ndarray, " d_sae"]) -> Clusters:
    """Split the alive features into a low-density and a high-density cluster.

    The distribution of log10 density is smoothed by a normal kernel (Silverman's width, 0.15 decades or more). The
    split is the bottom of its deepest valley, measured against the lower of the two peaks beside it, with at least 0.5
    % of the alive features on each side. A valley counts where it is less than half as high as that peak; with none the
    features form one cluster, and Otsu's threshold on log10 density splits them by convention (`separated` is False).

    Raises: ValueError where fewer than two features are alive.
    """
    alive = density > 0
    if alive.sum() < 2:
        raise ValueError(
            f"sae: {int(alive.sum())} of {len(density)} features fire and a split needs two; "
            "train longer or with a smaller lam."
        )
    logs = np.log10(density[alive])
    valley = _valley(logs)
    split = 10 ** (_otsu(logs) if valley is None else valley)
    return Clusters(
        low=alive & (density <= split), high=density > split, split=float(split), separated=valley is not None
    )


def _valley(logs: Float64[np.ndarray, " n"]) -> float | None:
    """The bottom of the deepest valley of the smoothed distribution, or None."""
    values, counts = np.unique(logs, return_counts=True)
    quartiles = np.percentile(logs, [25, 75])
    width = max(NARROWEST_KERNEL, 0.9 * min(logs.std(), np.ptp(quartiles) / 1.34) * len(logs) ** -0.2)
    grid = np.linspace(values[0], values[-1], 512)
    height = np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2) @ counts
    beside = np.minimum(np.maximum.accumulate(height), np.maximum.accumulate(height[::-1])[::-1])
    depth = height / beside
    below = np.searchsorted(np.sort(logs), grid, side="right") / len(logs)
    smallest = max(SMALLEST_CLUSTER, 1 / len(logs))
    depth[(below < smallest) | (below > 1 - smallest)] = np.inf
    if depth.min() >= DEEPEST_VALLEY:
        return None
    # An empty gap is flat at zero: its middle is the split.
    bottom = np.flatnonzero(depth <= depth.min() + 1e-6)
    return float(grid[bottom].mean())


def _otsu(logs: Float64[np.ndarray, " n"]) -> float:
    """The threshold with the largest variance between the two sides (Otsu 1979), over every cut between distinct
    values.
    """
    values, counts = np.unique(logs, return_counts=True)
    if len(values) == 1:
        return float(values[0])
    left = np.cumsum(counts)[:-1]
    sums = np.cumsum(values * counts)
    right = len(logs) - left
    between = left * right * (sums[:-1] / left - (sums[-1] - sums[:-1]) / right) ** 2
    best = int(between.argmax())
    return float((values[best] + values[best + 1]) / 2)
