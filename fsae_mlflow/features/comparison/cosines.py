"""Cosines between decoder directions, block by block: all those of 65,536 features would take 17 GB."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor
from torch.nn import functional as F

AT_ONCE = 2**25
"""Cosines in memory: 128 MiB."""
OPPOSITE = -0.9
"""A cosine below it makes two features antipodes."""


def cosine_blocks(
    a: Float[Tensor, "n_a d_in"], b: Float[Tensor, "n_b d_in"]
) -> Iterator[tuple[int, Float32[Tensor, "block n_b"]]]:
    """The cosines of rows of `a` with all rows of `b`, each block with its first row."""
    a, b = F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)
    n_rows = max(1, AT_ONCE // max(len(b), 1))
    for first in range(0, len(a), n_rows):
        yield first, a[first : first + n_rows] @ b.T


@torch.no_grad()
def antipodes(W_dec: Float[Tensor, "d_sae d_in"], alive: Bool[np.ndarray, " d_sae"]) -> Float32[np.ndarray, " d_sae"]:
    """The smallest cosine, −1…1, of each alive feature's decoder row with that of another alive feature.

    It is −1 where another feature has the opposite direction, and nan for a dead feature and for the only alive one.
    """
    found = np.full(len(alive), np.nan, np.float32)
    features = np.flatnonzero(alive)
    if len(features) < 2:
        return found
    rows = W_dec[torch.from_numpy(features).to(W_dec.device)]
    # A cosine with itself is 1, and never smaller than one with another feature.
    smallest = [cosines.min(dim=1).values for _, cosines in cosine_blocks(rows, rows)]
    found[features] = torch.cat(smallest).clamp(-1, 1).cpu().numpy()
    return found


def antipode_share(antipode: Float32[np.ndarray, " d_sae"]) -> float:
    """The share, 0…1, of the alive features that have an antipode, a cosine below −0.9; 0 where none has another."""
    known = antipode[~np.isnan(antipode)]
    return float((known < OPPOSITE).mean()) if len(known) else 0.0
