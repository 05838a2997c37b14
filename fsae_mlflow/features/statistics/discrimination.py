"""How well an activation tells the faces with an attribute from the others."""

import numpy as np
from jaxtyping import Float64, Int64

from fsae_mlflow.features.statistics.order import alike, by_activation, last_of_equals, rank_scores, totals
from fsae_mlflow.sae.entries import Entries


def auroc(entries: Entries, labels: Float64[np.ndarray, "n_rows m"]) -> Float64[np.ndarray, "d_sae m"]:
    """The area under the ROC curve (0 … 1) of each activation for each attribute (0, 1, or nan for unknown).

    Faces that do not fire have activation 0, and ties count one half. nan where not both 0 and 1 occur.
    """
    areas = np.full((entries.d_sae, labels.shape[1]), np.nan)
    for known, columns in alike(labels):
        faces, y = entries.of_rows(known), labels[np.ix_(known, columns)]
        scores = faces.sums(rank_scores(faces), y)
        areas[:, columns] = area(scores, faces.counts[:, None], n_positive=y.sum(axis=0), n_rows=len(y))
    return areas


def area(
    scores: Float64[np.ndarray, "..."],
    counts: Int64[np.ndarray, "..."],
    *,
    n_positive: Float64[np.ndarray, "..."],
    n_rows: int,
) -> Float64[np.ndarray, "..."]:
    """AUROC from the sum of the positive rows' `rank_scores` and the number of rows that fire (Mann and Whitney)."""
    ranks = scores + n_positive * (n_rows - counts + 1) / 2
    pairs = n_positive * (n_rows - n_positive)
    return (ranks - n_positive * (n_positive + 1) / 2) / np.where(pairs > 0, pairs, np.nan)


def average_precision(
    entries: Entries, labels: Float64[np.ndarray, "n_rows m"], column: Int64[np.ndarray, " d_sae"]
) -> Float64[np.ndarray, " d_sae"]:
    """The average precision (0 … 1) of each activation for one attribute of its own, as scikit-learn computes it.

    `labels` are 0, 1, or nan for unknown. Equal activations are one threshold, and so are all faces that do not fire.
    nan where `column` is −1 and where no face has the attribute.
    """
    labels = np.column_stack([labels, np.full(len(labels), np.nan)])
    order = by_activation(entries)
    hits = labels[entries.rows[order], column[entries.feature]]
    known = ~np.isnan(hits)
    feature, values, hits = entries.feature[known], entries.values[order[known]], hits[known]
    starts = np.searchsorted(feature, np.arange(entries.d_sae + 1))
    total = np.concatenate([[0], hits.cumsum()])
    last = np.flatnonzero(last_of_equals(feature, values))
    of_last = feature[last]
    precision = (total[last + 1] - total[starts[of_last]]) / (last + 1 - starts[of_last])
    gained = np.diff(total[last + 1], prepend=0)
    n_rows, n_positive = (~np.isnan(labels)).sum(axis=0), np.nansum(labels, axis=0)
    missed = n_positive[column] - (total[starts[1:]] - total[starts[:-1]])
    base = n_positive / np.maximum(n_rows, 1)
    found = totals(of_last, precision * gained, entries.d_sae) + missed * base[column]
    return found / np.where(n_positive > 0, n_positive, np.nan)[column]
