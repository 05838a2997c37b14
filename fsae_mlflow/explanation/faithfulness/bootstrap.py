"""Confidence intervals of means, from values resampled with replacement (bootstrap, Efron 1979)."""

import numpy as np
from jaxtyping import Float64

N_DRAWS = 2000


def interval_of_mean(values: Float64[np.ndarray, " n"], name: str) -> dict[str, float]:
    """The mean of values as the metric `name`, and its 95 % percentile interval as `name`_low and `name`_high."""
    drawn = np.random.default_rng(0).integers(len(values), size=(N_DRAWS, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), (0.025, 0.975)).tolist()
    return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
