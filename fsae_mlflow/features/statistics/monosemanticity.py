"""Whether another recognizer finds the faces alike that fire a feature."""

from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float64
from numba import njit

from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.sae.fused.kernels import parallel_for


def monosemanticity(entries: Entries, judge: Float[np.ndarray, "n_rows d"]) -> Float64[np.ndarray, " d_sae"]:
    """The mean cosine of the judge's templates of two faces, weighted with the product of their activations (−1 … 1).

    `judge`: L2-normalized templates x̂ of the same faces by another recognizer. With w the activations it is
    (‖Σ w x̂‖² − Σ w²) / ((Σ w)² − Σ w²), the monosemanticity score of Pach et al. 2025 (sae-for-vlm) over pairs of
    different faces. nan where fewer than 2 faces fire.
    """
    scores = np.full(entries.d_sae, np.nan)
    parallel_for(_score, entries.d_sae, entries.indptr, entries.rows, entries.values, judge, scores)
    return scores


def monosemanticity_shuffled(
    entries: Entries, judge: Float[np.ndarray, "n_rows d"], *, seed: int, n_shuffles: int = 3
) -> Float64[np.ndarray, " d_sae"]:
    """The mean of `monosemanticity` over shuffles of the judge's rows: what faces that have nothing in common give.

    Over all shuffles it is the mean cosine of two different faces, for every feature.
    """
    numbers = np.random.default_rng(seed)
    shuffles = [monosemanticity(entries, judge[numbers.permutation(len(judge))]) for _ in range(n_shuffles)]
    return np.mean(shuffles, axis=0)


@no_type_check
@njit(nogil=True, cache=True)
def _score(first, last, indptr, rows, values, judge, scores):
    total = np.empty(judge.shape[1])
    for j in range(first, last):
        if indptr[j + 1] - indptr[j] < 2:
            continue
        total[:] = 0
        weight, squares = 0.0, 0.0
        for e in range(indptr[j], indptr[j + 1]):
            w = np.float64(values[e])
            row = judge[rows[e]]
            weight += w
            squares += w * w
            for i in range(total.shape[0]):
                total[i] += w * row[i]
        norm = 0.0
        for i in range(total.shape[0]):
            norm += total[i] * total[i]
        scores[j] = (norm - squares) / (weight * weight - squares)
