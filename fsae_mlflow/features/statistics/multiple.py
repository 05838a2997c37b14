"""Correction of p for the number of features that were tested."""

import numpy as np
from jaxtyping import Float64
from scipy.stats import false_discovery_control


def benjamini_hochberg(p: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """The false discovery rate q (0 … 1) at which each p would pass (Benjamini and Hochberg 1995).

    nan was not tested: it is not counted, and its q is nan.
    """
    q, tested = np.full(len(p), np.nan), ~np.isnan(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    return q
