"""What is left of a correlation when another label explains a part of it."""

import numpy as np
from jaxtyping import Float64
from scipy.stats import rankdata


def rank_correlations(labels: Float64[np.ndarray, "n m"]) -> Float64[np.ndarray, "m m"]:
    """Spearman's ρ (φ of attributes) of each two labels, on the faces where both are known; nan where one is constant.

    Ranks are among the faces where the label itself is known.
    """
    known = (~np.isnan(labels)).astype(np.float64)
    ranks = np.nan_to_num(rankdata(labels, axis=0, nan_policy="omit"))
    n, sums, squares = np.maximum(known.T @ known, 1), ranks.T @ known, (ranks**2).T @ known
    left = np.where(squares - sums**2 / n > 1e-9 * squares, squares - sums**2 / n, np.nan)
    return np.clip((ranks.T @ ranks - sums * sums.T / n) / np.sqrt(left * left.T), -1, 1)


def partial(
    rho: Float64[np.ndarray, " n"], with_other: Float64[np.ndarray, " n"], between: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """The correlation that is left given another label; nan where the two labels are the same."""
    left = (1 - with_other**2) * (1 - between**2)
    return (rho - with_other * between) / np.sqrt(np.where(left > 1e-9, left, np.nan))
