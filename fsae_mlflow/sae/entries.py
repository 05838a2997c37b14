"""The active entries of templates: the sparse features, without the zeros."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, Int64
from scipy.sparse import csr_array


@dataclass(frozen=True, kw_only=True)
class Entries:
    """The features above 0 of `n_rows` templates, stored by feature.

    Those of feature j are `rows[indptr[j] : indptr[j + 1]]`, in ascending order, with their activations in `values`.
    """

    n_rows: int
    indptr: Int64[np.ndarray, " d_sae_and_1"]
    rows: Int32[np.ndarray, " n"]
    values: Float32[np.ndarray, " n"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "n_rows d_sae"]) -> "Entries":
        """The entries of dense features."""
        feature, rows = np.nonzero(features.T > 0)
        counts = np.bincount(feature, minlength=features.shape[1])
        return cls(
            n_rows=len(features),
            indptr=np.concatenate([[0], counts.cumsum()]).astype(np.int64),
            rows=rows.astype(np.int32),
            values=features[rows, feature].astype(np.float32),
        )

    @classmethod
    def joined(cls, parts: "Sequence[Entries]") -> "Entries":
        """The entries of consecutive parts of the rows of one SAE's templates."""
        if len(parts) == 1:
            return parts[0]
        counts = np.stack([part.counts for part in parts])
        indptr = np.concatenate([[0], counts.sum(axis=0).cumsum()])
        rows, values = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
        starts, first = indptr[:-1].copy(), 0
        for part, n in zip(parts, counts, strict=True):
            place = np.arange(len(part.rows)) + np.repeat(starts - part.indptr[:-1], n)
            rows[place], values[place] = part.rows + np.int32(first), part.values
            starts += n
            first += part.n_rows
        return cls(n_rows=first, indptr=indptr, rows=rows, values=values)

    @property
    def d_sae(self) -> int:
        """The number of features."""
        return len(self.indptr) - 1

    @property
    def counts(self) -> Int64[np.ndarray, " d_sae"]:
        """Templates that fire each feature."""
        return np.diff(self.indptr)

    @cached_property
    def feature(self) -> Int32[np.ndarray, " n"]:
        """The feature of each entry."""
        return np.repeat(np.arange(self.d_sae, dtype=np.int32), self.counts)

    def place_of(self, feature: int) -> slice:
        """Where the entries of a feature stand in `rows` and `values`."""
        return slice(self.indptr[feature], self.indptr[feature + 1])

    def table(self, values: Float[np.ndarray, " n"]) -> csr_array:
        """One value for each entry, as a sparse table of features by templates."""
        return csr_array((values, self.rows, self.indptr), shape=(self.d_sae, self.n_rows))

    def per_row(self) -> Int64[np.ndarray, " n_rows"]:
        """The number of features that each template fires: its L0."""
        return np.bincount(self.rows, minlength=self.n_rows)

    def of_rows(self, mask: Bool[np.ndarray, " n_rows"]) -> "Entries":
        """The entries of the rows in `mask`, numbered anew from 0."""
        number = (np.cumsum(mask) - 1).astype(np.int32)
        kept = self._where(mask[self.rows])
        return replace(kept, n_rows=int(mask.sum()), rows=number[kept.rows])

    def of_features(self, mask: Bool[np.ndarray, " d_sae"]) -> "Entries":
        """The entries of the features in `mask`; the others then fire on no row."""
        return self._where(mask[self.feature])

    def _where(self, kept: Bool[np.ndarray, " n"]) -> "Entries":
        counts = np.bincount(self.feature[kept], minlength=self.d_sae)
        indptr = np.concatenate([[0], counts.cumsum()])
        return Entries(n_rows=self.n_rows, indptr=indptr, rows=self.rows[kept], values=self.values[kept])

    def sums(
        self, weights: Float[np.ndarray, " n"], columns: Float[np.ndarray, "n_rows m"]
    ) -> Float[np.ndarray, "f m"]:
        """Σ weight · columns[row] over the entries of each feature, given one weight for each entry."""
        return self.table(weights) @ columns
