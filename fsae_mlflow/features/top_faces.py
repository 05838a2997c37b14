"""Which faces fire a feature most, and which features are worth looking at."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64

from fsae_mlflow.features.density import Clusters, Survey, encoded
from fsae_mlflow.sae.base import SparseAutoencoder


@dataclass(frozen=True, kw_only=True)
class TopRows:
    """Per feature the rows of highest activation, highest first, and these activations; a row of -1 (activation 0)
    fills up where fewer fire.
    """

    features: Int64[np.ndarray, " features"]
    rows: Int64[np.ndarray, "features k"]
    activations: Float32[np.ndarray, "features k"]

    def firing(self, position: int, k: int) -> Int64[np.ndarray, " rows"]:
        """Up to `k` rows that fire the feature at `position`."""
        rows = self.rows[position, :k]
        return rows[rows >= 0]


def top_rows(
    sae: SparseAutoencoder,
    templates: Float32[np.ndarray, "n d_in"],
    features: Sequence[int],
    *,
    k: int,
    batch_size: int = 512,
) -> TopRows:
    """The `k` raw templates that fire each of `features` most, in one pass that keeps k rows per feature; of equals the
    earlier row comes first.

    Raises: ValueError for a feature that the SAE does not have.
    """
    if unknown := [feature for feature in features if not 0 <= feature < sae.d_sae]:
        raise ValueError(f"features must be numbers from 0 to {sae.d_sae - 1}; they name {unknown[0]}.")
    chosen = torch.tensor(list(features), dtype=torch.int64)
    k = min(k, len(templates))
    rows = np.full((len(features), k), -1, dtype=np.int64)
    activations = np.zeros((len(features), k), dtype=np.float32)
    first = 0
    for batch in encoded(sae, templates, batch_size=batch_size):
        values = batch[:, chosen.to(batch.device)].T.cpu().numpy()
        here = np.where(values > 0, np.arange(first, first + values.shape[1]), -1)
        values, here = np.hstack([activations, values]), np.hstack([rows, here])
        order = np.argsort(-values, axis=1, kind="stable")[:, :k]
        activations, rows = np.take_along_axis(values, order, axis=1), np.take_along_axis(here, order, axis=1)
        first += batch.shape[0]
    return TopRows(features=chosen.numpy(), rows=rows, activations=activations)


def choose_features(survey: Survey, clusters: Clusters, *, n: int, enough: int) -> list[int]:
    """The `n` best features to look at: half of the high-density cluster, half of the low-density cluster, high first.

    Within a cluster features that fire on at least `enough` faces come first, then those that fire on most; among
    equals the one whose strongest activation stands out most from its mean activation where it fires. A cluster that
    runs out leaves its places to the other.

    Raises: ValueError where no feature fires.
    """
    mean = survey.sums / np.maximum(survey.counts, 1)
    contrast = survey.maxima / np.maximum(mean, np.finfo(np.float64).tiny)
    ranked = []
    for members in (clusters.high, clusters.low):
        features = np.flatnonzero(members & (survey.counts > 0))
        ranked.append(
            features[np.lexsort((features, -contrast[features], -np.minimum(survey.counts[features], enough)))].tolist()
        )
    high, low = ranked
    if not high and not low:
        raise ValueError(
            "features=best finds no feature that fires on these templates; train the SAE longer or with a smaller lam."
        )
    n_low = min(len(low), max(n // 2, n - len(high)))
    return high[: n - n_low] + low[:n_low]
