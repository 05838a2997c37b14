"""The two clusters of features by density (the paper's figure 2), and the best features of each."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from fsae_mlflow.errors import UserError

# Counts of 1 and 2 lie 0.30 decades apart; a kernel of this width joins them, so that small counts form no cluster.
NARROWEST_KERNEL = 0.15
DEEPEST_VALLEY = 0.5
SMALLEST_CLUSTER = 0.005


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Alive features split by density: `low` up to `split`, `high` above it; dead features are in neither.

    `separated`: whether the distribution of densities has a valley at the split. Without a valley the split is a
    convention.
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

    The distribution of log10 density is smoothed by a Gaussian (Silverman's width, 0.15 decades or more). The
    split is the bottom of its deepest valley that has at least 0.5 % of the alive features on each side. The depth of a
    valley is its height relative to the lower of the two peaks beside it, and must be less than one half. Without such
    a valley the features form one cluster; Otsu's threshold on log10 density then splits them by convention, and
    `separated` is False.

    Raises: UserError where fewer than two features are alive.
    """
    alive = density > 0
    if alive.sum() < 2:
        raise UserError(
            f"sae: {int(alive.sum())} of {len(density)} features fire, and a split into clusters needs at least 2; "
            "train the SAE longer, or with a larger target_l0 or smaller lam."
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
    # Where no feature lies between the clusters the height is 0 over a range; the middle of the range is the split.
    bottom = np.flatnonzero(depth <= depth.min() + 1e-6)
    return float(grid[bottom].mean())


def _otsu(logs: Float64[np.ndarray, " n"]) -> float:
    """The threshold with the largest variance between the two sides (Otsu 1979), among all cuts between distinct
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


def choose_features(
    clusters: Clusters,
    counts: Int64[np.ndarray, " d_sae"],
    contrast: Float64[np.ndarray, " d_sae"],
    *,
    n: int,
    enough: int,
) -> list[int]:
    """The `n` best features to look at: half from the high-density cluster and half from the low-density cluster, high
    first.

    Within a cluster, features that fire on at least `enough` faces come first, then those that fire on most (`counts`).
    Among equals, the higher `contrast` comes first: the ratio of the largest to the mean activation of the faces that
    fire the feature. If a cluster has too few features, the other one gives more.

    Raises: UserError where no feature fires.
    """
    ranked = []
    for members in (clusters.high, clusters.low):
        features = np.flatnonzero(members & (counts > 0))
        order = np.lexsort((features, -contrast[features], -np.minimum(counts[features], enough)))
        ranked.append(features[order].tolist())
    high, low = ranked
    if not high and not low:
        raise UserError(
            "features=best finds no feature that fires on these templates; "
            "train the SAE longer, or with a larger target_l0 or smaller lam."
        )
    n_low = min(len(low), max(n // 2, n - len(high)))
    return high[: n - n_low] + low[:n_low]
