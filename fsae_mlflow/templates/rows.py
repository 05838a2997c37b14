"""Which rows of a set are shown, where there are too many."""

import numpy as np


def evenly_spaced(n: int, *, most: int) -> list[int]:
    """Up to `most` of the numbers 0…n - 1, evenly spaced from the first to the last."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist()
