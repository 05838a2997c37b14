"""Which feature of another SAE each feature is found again as: one to one, so that the similarities sum to the most.

Similar is what decodes to the same direction (the cosine of decoder rows) or fires on the same faces (Pearson's
correlation of activations). A feature and its opposite fire on different faces, so similarities are signed, and
features whose best is not above 0 have no match.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

from fsae_mlflow.features.comparison.cosines import cosine_blocks
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries

N_CANDIDATES = 64
AT_ONCE = 2**23
"""Correlations in memory, each with its index."""
FOUND_AGAIN = 0.7
UNMATCHED = 1e-6
"""What a feature without a match adds to the sum: less than any similarity that matters."""

Blocks = Iterator[tuple[int, Float32[Tensor, "block n_b"]]]
"""Similarities of rows of A with all columns of B, each block with its first row."""


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Features of SAE A (`first`) and those of SAE B (`second`) that they are matched with.

    `similarity`: in (0, 1]. `n`: the alive features of the SAE that has fewer. `left_out`: the assignment considers the
    64 most similar features of each feature of A; no other pair is more similar than this.
    """

    first: Int64[np.ndarray, " n_matches"]
    second: Int64[np.ndarray, " n_matches"]
    similarity: Float64[np.ndarray, " n_matches"]
    n: int
    left_out: float

    @property
    def mcc(self) -> float:
        """The mean similarity, 0…1, of the n matches, 0 for a missing one; nan where n is 0.

        Of cosines it is Song et al. 2025's (arXiv 2505.20254) MCC(A, B), whose mean over pairs of SAEs is PW-MCC, with
        signed cosines as in their code, where their text has |cosine|.
        """
        return float(self.similarity.sum() / self.n) if self.n else float("nan")

    @property
    def found_again(self) -> float:
        """The share, 0…1, of the n features whose match is more similar than 0.7; nan where n is 0."""
        return float((self.similarity > FOUND_AGAIN).sum() / self.n) if self.n else float("nan")


def match_directions(
    a: SparseAutoencoder,
    b: SparseAutoencoder,
    alive_a: Bool[np.ndarray, " d_sae_a"],
    alive_b: Bool[np.ndarray, " d_sae_b"],
) -> Matches:
    """The matches between the alive features of two SAEs by the cosines of their decoder rows."""
    features = np.flatnonzero(alive_a), np.flatnonzero(alive_b)
    rows = [
        sae.W_dec.detach()[torch.from_numpy(of).to(sae.W_dec.device)] for sae, of in zip((a, b), features, strict=True)
    ]
    return _numbered(assigned(cosine_blocks(*rows), len(rows[0]), len(rows[1])), *features)


def match_activations(a: Entries, b: Entries) -> Matches:
    """The matches between the features that fire in entries of the same faces, by the correlation of activations."""
    features = np.flatnonzero(a.counts), np.flatnonzero(b.counts)
    found = assigned(correlation_blocks(a, b), len(features[0]), len(features[1]))
    return _numbered(found, *features)


def correlation_blocks(a: Entries, b: Entries) -> Blocks:
    """Pearson's correlations of the activations of each feature that fires in `a` with each that fires in `b`.

    Faces that do not fire a feature count, with 0. They are 0 where a feature does not vary.
    """
    (x, mean_x), (y, mean_y) = _scaled(a), _scaled(b)
    n_rows = max(1, AT_ONCE // max(len(mean_y), 1))
    columns = y.T.tocsr()
    for first in range(0, len(mean_x), n_rows):
        inside = slice(first, first + n_rows)
        products = (csr_array(x[inside]) @ columns).toarray() / a.n_rows
        yield first, torch.from_numpy(products - np.outer(mean_x[inside], mean_y)).float()


def assigned(blocks: Blocks, n_a: int, n_b: int) -> Matches:
    """The one-to-one matches of rows and columns whose similarities, above 0, sum to the most.

    Of each row the 64 largest similarities can be chosen, and each row can stay alone, so that memory is that of 64
    numbers a row. With 64 columns or fewer the result is that of scipy's `linear_sum_assignment`; so it is otherwise,
    unless a row would have to take one that is not among its 64 largest.
    """
    k = min(N_CANDIDATES, n_b)
    values, places, left_out = np.zeros((n_a, k)), np.zeros((n_a, k), np.int64), 0.0
    for first, block in blocks:
        top = block.topk(k, dim=1)
        inside = slice(first, first + len(block))
        values[inside], places[inside] = top.values.cpu().numpy(), top.indices.cpu().numpy()
        if k < n_b:
            left_out = max(left_out, float(top.values[:, -1].max()))
    if not n_a or not n_b:
        nothing = np.zeros(0, np.int64)
        return Matches(first=nothing, second=nothing, similarity=np.zeros(0), n=0, left_out=0.0)
    row, place = np.nonzero(values > 0)
    # A column of its own for each row, so that a full matching exists.
    alone = np.arange(n_a)
    weights = np.concatenate([values[row, place], np.full(n_a, UNMATCHED)])
    table = csr_array(
        (weights, (np.concatenate([row, alone]), np.concatenate([places[row, place], n_b + alone]))),
        shape=(n_a, n_b + n_a),
    )
    first, second = (one.astype(np.int64) for one in min_weight_full_bipartite_matching(table, maximize=True))
    similarity = np.asarray(table[first, second])
    matched = second < n_b
    return Matches(
        first=first[matched],
        second=second[matched],
        similarity=similarity[matched].clip(max=1),
        n=min(n_a, n_b),
        left_out=left_out,
    )


def _scaled(entries: Entries) -> tuple[csr_array, Float64[np.ndarray, " n_features"]]:
    """The activations of the features that fire, at a standard deviation of 1, and their means."""
    fires = entries.counts > 0
    table = entries.table(entries.values.astype(np.float64))[fires]
    mean = table.sum(axis=1) / entries.n_rows
    deviation = np.sqrt((table.power(2).sum(axis=1) / entries.n_rows - mean**2).clip(min=0))
    varies = deviation > 1e-6 * mean
    scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0.0)
    table.data *= np.repeat(scale, np.diff(table.indptr))
    return table, mean * scale


def _numbered(found: Matches, a: Int64[np.ndarray, " n_a"], b: Int64[np.ndarray, " n_b"]) -> Matches:
    """Matches of rows as those of the features that the rows are of."""
    return replace(found, first=a[found.first], second=b[found.second])
