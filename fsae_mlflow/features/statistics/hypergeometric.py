"""The upper tail of the hypergeometric distribution, for many cases at once."""

import numpy as np
from jaxtyping import Float64, Int64
from scipy.special import betaln


def upper_tail(
    x: Int64[np.ndarray, "..."],
    *,
    population: Int64[np.ndarray, "..."],
    marked: Int64[np.ndarray, "..."],
    drawn: Int64[np.ndarray, "..."],
) -> Float64[np.ndarray, "..."]:
    """The probability (0 … 1) that at least `x` of `drawn` rows are marked, drawn from `population` without return.

    The same as `scipy.stats.hypergeom.sf(x - 1, population, marked, drawn)`, many times faster on large arrays.
    """
    x, population, marked, drawn = np.broadcast_arrays(x, population, marked, drawn)
    least = np.maximum(0, marked + drawn - population)
    possible = np.minimum(marked, drawn)
    at = np.clip(x, least, possible)
    term = np.exp(
        _log_choose(marked, at) + _log_choose(population - marked, drawn - at) - _log_choose(population, drawn)
    )
    term = np.where(x > possible, 0.0, term)
    tail = term.copy()
    for _ in range(int((possible - at).max(initial=0))):
        # The ratio of neighboring terms; it is 0 from `possible` on.
        term = term * ((marked - at) * (drawn - at) / ((at + 1) * (population - marked - drawn + at + 1)))
        tail += term
        at = np.minimum(at + 1, possible)
    return np.where(x <= least, 1.0, np.minimum(tail, 1))


def _log_choose(n: Int64[np.ndarray, "..."], k: Int64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    return -betaln(n - k + 1, k + 1) - np.log(n + 1)
