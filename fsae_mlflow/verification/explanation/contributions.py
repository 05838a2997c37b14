"""The cosine of two decoded templates as an exact sum over features.

    x̂ = c + Σ_j f_j d_j                                    d_j = W_dec,j / scale,  c = b_dec / scale + center

    cos(x̂_a, x̂_b) = Σ_j (f_aj d_j·x̂_b + f_bj d_j·x̂_a) / (2 ‖x̂_a‖ ‖x̂_b‖)   contribution of feature j
                   + c·(x̂_a + x̂_b) / (2 ‖x̂_a‖ ‖x̂_b‖)                       what all decoded templates have in common

It is the sum over all pairs of a feature of one face and a feature of the other, each divided equally between the two
features. What the cosine of the original templates is above that, the SAE leaves unexplained.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64
from scipy.sparse import csr_array

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.sae.fused.kernels import parallel_for
from fsae_mlflow.verification.explanation import kernels

TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """The decoder of an SAE in the recognizer's units: x̂ = constant + Σ_j f_j · directions[j]."""

    directions: Float32[np.ndarray, "d_sae d_in"]
    constant: Float64[np.ndarray, " d_in"]

    @classmethod
    def of(cls, sae: SparseAutoencoder) -> "Decoder":
        """The decoder of `sae`."""
        W_dec, b_dec, center, scale = (
            tensor.detach().cpu().numpy() for tensor in (sae.W_dec, sae.b_dec, sae.center, sae.scale)
        )
        constant = b_dec.astype(np.float64) / scale + center.astype(np.float64)
        return cls(directions=np.ascontiguousarray(W_dec / scale, np.float32), constant=constant)

    def decoded(self, features: csr_array) -> Float64[np.ndarray, "n d_in"]:
        """The templates that sparse features (n, d_sae) stand for."""
        x_hat = np.tile(self.constant, (features.shape[0], 1))
        parallel_for(
            kernels.decode, len(x_hat), features.indptr, features.indices, features.data, self.directions, x_hat
        )
        return x_hat


@dataclass(frozen=True, kw_only=True)
class Contributions:
    """What each feature that fires on either face of a pair contributes to the cosine of its decoded templates.

    The entries of pair i stand at `indptr[i] : indptr[i + 1]`, in ascending order of `feature`. `first`, `second`: the
    activations on both faces. `along_first`, `along_second`: d_j·x̂ of both. `squared`: ‖d_j‖². Of each pair: `lengths`
    ‖x̂‖ of both faces, `decoded` the cosine of the decoded and `original` of the original templates, `constant` what all
    decoded templates have in common.
    """

    indptr: Int64[np.ndarray, " pairs_and_1"]
    feature: Int32[np.ndarray, " n"]
    first: Float64[np.ndarray, " n"]
    second: Float64[np.ndarray, " n"]
    along_first: Float64[np.ndarray, " n"]
    along_second: Float64[np.ndarray, " n"]
    squared: Float64[np.ndarray, " n"]
    lengths: Float64[np.ndarray, "pairs 2"]
    decoded: Float64[np.ndarray, " pairs"]
    original: Float64[np.ndarray, " pairs"]
    constant: Float64[np.ndarray, " pairs"]

    def __len__(self) -> int:
        return len(self.decoded)

    @cached_property
    def pair(self) -> Int64[np.ndarray, " n"]:
        """The pair of each entry."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))

    @cached_property
    def value(self) -> Float64[np.ndarray, " n"]:
        """The contribution of each entry."""
        size = 2 * self.lengths.prod(axis=1)[self.pair]
        return (self.first * self.along_second + self.second * self.along_first) / np.maximum(size, TINY)

    @property
    def unexplained(self) -> Float64[np.ndarray, " pairs"]:
        """How much more similar (below 0: less) the original templates are than the decoded ones."""
        return self.original - self.decoded

    @property
    def shared(self) -> Bool[np.ndarray, " n"]:
        """Whether both faces fire the feature."""
        return (self.first > 0) & (self.second > 0)

    @cached_property
    def without(self) -> Float64[np.ndarray, " n"]:
        """The cosine of the decoded templates where this feature alone is switched off on both faces."""
        one, other = self.lengths[self.pair].T
        dot = self.decoded[self.pair] * one * other
        dot -= self.first * self.along_second + self.second * self.along_first - self.first * self.second * self.squared
        one = one**2 - 2 * self.first * self.along_first + self.first**2 * self.squared
        other = other**2 - 2 * self.second * self.along_second + self.second**2 * self.squared
        return dot / np.sqrt(np.maximum(one * other, TINY))

    def of_pair(self, pair: int) -> slice:
        """Where the entries of a pair stand."""
        return slice(self.indptr[pair], self.indptr[pair + 1])


def contributions(
    decoder: Decoder,
    entries: Entries,
    templates: Float[np.ndarray, "n d_in"],
    first: Int64[np.ndarray, " pairs"],
    second: Int64[np.ndarray, " pairs"],
) -> Contributions:
    """Split the cosine of each pair of rows, `first` and `second`, of raw `templates`, whose features are `entries`."""
    features = rows_of(entries)
    x_hat = decoder.decoded(features)
    firing = (features.indptr, features.indices)
    counts = np.zeros(len(first), np.int64)
    parallel_for(kernels.count_either, len(first), first, second, *firing, counts)
    starts = np.concatenate([[0], counts.cumsum()])
    feature = np.zeros(starts[-1], np.int32)
    on_first, on_second, along_first, along_second = np.zeros((4, starts[-1]))
    parallel_for(
        kernels.merge, len(first), first, second, *firing, features.data, starts, feature, on_first, on_second
    )
    parallel_for(
        *(kernels.project, len(first), first, second, starts, feature, decoder.directions),
        *(x_hat, along_first, along_second),
    )
    lengths = np.linalg.norm(x_hat, axis=1)
    in_common = x_hat @ decoder.constant
    return Contributions(
        indptr=starts,
        feature=feature,
        first=on_first,
        second=on_second,
        along_first=along_first,
        along_second=along_second,
        squared=np.square(decoder.directions).sum(axis=1, dtype=np.float64)[feature],
        lengths=np.stack([lengths[first], lengths[second]], axis=1),
        decoded=cosines(x_hat[first], x_hat[second]),
        original=cosines(templates[first], templates[second]),
        constant=(in_common[first] + in_common[second]) / np.maximum(2 * lengths[first] * lengths[second], TINY),
    )


def rows_of(entries: Entries) -> csr_array:
    """Entries as a sparse table of templates by features, the features of each template ascending."""
    table = entries.table(entries.values.astype(np.float64)).T.tocsr()
    return csr_array((table.data, table.indices, table.indptr), shape=table.shape)


def cosines(a: Float[np.ndarray, "pairs d"], b: Float[np.ndarray, "pairs d"]) -> Float64[np.ndarray, " pairs"]:
    """The cosine, −1…1, of each row of `a` with that of `b`; 0 with a row of zeros."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.einsum("nd,nd->n", a, b) / np.maximum(lengths, TINY)
