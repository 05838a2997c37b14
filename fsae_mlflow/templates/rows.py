"""Which rows of a set are taken, where there are too many."""

import numpy as np
from jaxtyping import Int64, Shaped

from fsae_mlflow.identities import drawn_below, hashed


def evenly_spaced(n: int, *, most: int) -> list[int]:
    """Up to `most` of the numbers 0…n - 1, evenly spaced from the first to the last."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist()


def drawn_rows(identities: Shaped[np.ndarray, " n"], n_wanted: int) -> Int64[np.ndarray, " drawn"]:
    """The rows, ascending, of people drawn at random, so that about `n_wanted` are theirs; evenly spaced rows where
    people are so few that this misses `n_wanted` by more than a factor of two.
    """
    n = len(identities)
    rows = np.flatnonzero(hashed(identities) <= np.uint64(drawn_below(n_wanted, n)))
    if min(n_wanted, n) / 2 <= len(rows) <= 2 * n_wanted:
        return rows
    return np.array(evenly_spaced(n, most=n_wanted), np.int64)
