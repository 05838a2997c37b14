"""The cosine of two decoded templates as an exact sum over features.

    x̂ = c + Σ_j f_j d_j                                    d_j = W_dec,j / scale,  c = b_dec / scale + center

    cos(x̂_a, x̂_b) = Σ_j (f_aj d_j·x̂_b + f_bj d_j·x̂_a) / (2 ‖x̂_a‖ ‖x̂_b‖)   contribution of feature j
                   + c·(x̂_a + x̂_b) / (2 ‖x̂_a‖ ‖x̂_b‖)                       what all decoded templates have in common

It is the sum over all pairs of a feature of one face and a feature of the other, each divided equally between the two
features. What the cosine of the original templates is above that, the SAE leaves unexplained.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64
from scipy.sparse import csr_array

from fsae_mlflow.explanation import kernels
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.sae.fused.kernels import parallel_for
from fsae_mlflow.verification.ablation.kernels import ZERO

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
        n = len(features.indptr) - 1
        x_hat = np.tile(self.constant, (n, 1))
        parallel_for(kernels.decode, n, features.indptr, features.indices, features.data, self.directions, x_hat)
        return x_hat


@dataclass(frozen=True, kw_only=True)
class Contributions:
    """What each feature that fires on either face of a pair contributes to the cosine of its decoded templates.

    The entries of pair i stand at `indptr[i] : indptr[i + 1]`, in ascending order of `feature`. `first`, `second`: the
    activations on both faces. `along_first`, `along_second`: d_j·x̂ of both. `squared`: ‖d_j‖². Of each pair: `rows` of
    both faces in the decoded templates `x_hat`, `decoded` the cosine of the decoded and `original` of the original
    templates, `constant` what all decoded templates have in common.
    """

    decoder: Decoder
    x_hat: Float64[np.ndarray, "faces d_in"]
    rows: Int64[np.ndarray, "pairs 2"]
    indptr: Int64[np.ndarray, " pairs_and_1"]
    feature: Int32[np.ndarray, " n"]
    first: Float64[np.ndarray, " n"]
    second: Float64[np.ndarray, " n"]
    along_first: Float64[np.ndarray, " n"]
    along_second: Float64[np.ndarray, " n"]
    squared: Float64[np.ndarray, " n"]
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
    def lengths(self) -> Float64[np.ndarray, "pairs 2"]:
        """‖x̂‖ of both faces of each pair."""
        return np.sqrt(np.square(self.x_hat).sum(axis=1))[self.rows]

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
        """The cosine of the decoded templates where this feature alone is switched off on both faces; 0 where
        nothing is left of a template.
        """
        one, other = self.lengths[self.pair].T
        dot = self.decoded[self.pair] * one * other
        dot -= self.first * self.along_second + self.second * self.along_first - self.first * self.second * self.squared
        one = one**2 - 2 * self.first * self.along_first + self.first**2 * self.squared
        other = other**2 - 2 * self.second * self.along_second + self.second**2 * self.squared
        whole = np.square(self.lengths[self.pair])
        nothing = (one <= ZERO * whole[:, 0]) | (other <= ZERO * whole[:, 1])
        return np.where(nothing, 0.0, dot / np.sqrt(np.where(nothing, 1.0, one * other)))

    def of_pair(self, pair: int) -> slice:
        """Where the entries of a pair stand."""
        return slice(int(self.indptr[pair]), int(self.indptr[pair + 1]))

    def of_pairs(self, pairs: Int64[np.ndarray, " some"]) -> "Contributions":
        """The contributions of some pairs."""
        kept = np.concatenate([np.arange(place.start, place.stop) for place in map(self.of_pair, pairs.tolist())])
        of_entries = ("feature", "first", "second", "along_first", "along_second", "squared")
        of_pairs = ("rows", "decoded", "original", "constant")
        return replace(
            self,
            indptr=np.concatenate([[0], np.diff(self.indptr)[pairs].cumsum()]),
            **{name: getattr(self, name)[kept] for name in of_entries},
            **{name: getattr(self, name)[pairs] for name in of_pairs},
        )

    def switched_off(
        self, pair: int, order: Int64[np.ndarray, " n"], n_off: Int64[np.ndarray, " steps"]
    ) -> Float64[np.ndarray, "2 steps d_in"]:
        """The decoded templates of a pair's two faces without the first `n_off` of its entries in `order`."""
        place = self.of_pair(pair)
        directions = self.decoder.directions[self.feature[place][order]].astype(np.float64)
        none = np.zeros((1, directions.shape[1]))
        removed = [
            np.vstack([none, np.cumsum(activations[place][order, None] * directions, axis=0)])[n_off]
            for activations in (self.first, self.second)
        ]
        return self.x_hat[self.rows[pair]][:, None] - np.stack(removed)


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
    parallel_for(kernels.merge, len(first), first, second, *firing, features.data, starts, feature, on_first, on_second)
    parallel_for(
        *(kernels.project, len(first), first, second, starts, feature, decoder.directions),
        *(x_hat, along_first, along_second),
    )
    size = np.maximum(2 * np.linalg.norm(x_hat[first], axis=1) * np.linalg.norm(x_hat[second], axis=1), TINY)
    return Contributions(
        decoder=decoder,
        x_hat=x_hat,
        rows=np.stack([first, second], axis=1),
        indptr=starts,
        feature=feature,
        first=on_first,
        second=on_second,
        along_first=along_first,
        along_second=along_second,
        squared=np.square(decoder.directions).sum(axis=1, dtype=np.float64)[feature],
        decoded=cosines(x_hat[first], x_hat[second]),
        original=cosines(templates[first], templates[second]),
        constant=(x_hat[first] + x_hat[second]) @ decoder.constant / size,
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
