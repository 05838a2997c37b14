"""People: the split of identities into training and holdout, and numbers for them."""

import hashlib

import numpy as np
from jaxtyping import Shaped, UInt64

from fsae_mlflow.errors import UserError


def holdout_rows(identities: np.ndarray, share: float, *, seed: int) -> np.ndarray:
    """A mask of the rows whose identity is held out: a random `share` of the identities, at least one if share > 0.

    Raises: UserError if no identity is left to train on.
    """
    people = np.unique(identities)
    n_held = max(1, round(share * len(people))) if share > 0 else 0
    if n_held >= len(people):
        raise UserError(
            f"holdout={share} of {len(people)} identities leaves nobody to train on; "
            "use holdout=0 or templates of more identities."
        )
    held = np.random.default_rng(seed).permutation(people)[:n_held]
    return np.isin(identities, held)


def hashed(identities: Shaped[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """A number of 64 bits for each identity, equal in every process; different identities differ almost certainly."""
    people, places = np.unique(identities.astype(str), return_inverse=True)
    digests = b"".join(hashlib.blake2b(person.encode(), digest_size=8).digest() for person in people.tolist())
    return np.frombuffer(digests, np.uint64)[places]


def drawn_below(n_wanted: int, n: int) -> int:
    """The largest hash of the people who are drawn at random, so that of `n` rows about `n_wanted` are theirs; all, if
    there are no more.
    """
    return 2**64 - 1 if n_wanted >= n else int(n_wanted / n * 2**64)
