"""The split of identities into training and holdout."""

import numpy as np


def holdout_rows(identities: np.ndarray, share: float, *, seed: int) -> np.ndarray:
    """A mask of the rows whose identity is held out: a random `share` of the identities, at least one if share > 0.

    Raises: ValueError if no identity is left to train on.
    """
    people = np.unique(identities)
    n_held = max(1, round(share * len(people))) if share > 0 else 0
    if n_held >= len(people):
        raise ValueError(
            f"holdout={share} of {len(people)} identities leaves nobody to train on; "
            "use holdout=0 or templates of more identities."
        )
    held = np.random.default_rng(seed).permutation(people)[:n_held]
    return np.isin(identities, held)
