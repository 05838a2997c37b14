"""Features, and groups of features with one reading, that wrong decisions have in common.

A feature counts in a pair of different people where both faces fire it, which makes them alike, and in a pair of one
person where exactly one face fires it, which sets them apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from scipy.sparse import csr_array
from scipy.stats import mannwhitneyu

from fsae_mlflow.features.activity.survey import encoded
from fsae_mlflow.features.readings.sentences import kinds_of
from fsae_mlflow.features.statistics.hypergeometric import upper_tail
from fsae_mlflow.features.statistics.multiple import benjamini_hochberg
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.verification.pairs import RowPairs


@dataclass(frozen=True, kw_only=True)
class FiredFeatures:
    """The features that the faces of the pairs fire (`entries`: of the pairs' rows in ascending order).

    `sentences`: the reading of each feature. `kinds`: what is read first of each, "unread" where nothing is confirmed.
    """

    entries: Entries
    sentences: Shaped[np.ndarray, " d_sae"]
    kinds: Shaped[np.ndarray, " d_sae"]

    @classmethod
    def of(
        cls,
        sae: SparseAutoencoder,
        templates: Float32[np.ndarray, "n d_in"],
        readings: Mapping[str, np.ndarray],
        *,
        batch_size: int,
    ) -> "FiredFeatures":
        """The features of raw templates, with the readings that describe wrote."""
        parts = [batch.entries for batch in encoded(sae, templates, batch_size=batch_size, label="audit")]
        return cls(entries=Entries.joined(parts), sentences=readings["reading"].astype(str), kinds=kinds_of(readings))


@dataclass(frozen=True, kw_only=True)
class Found:
    """What counts in wrong decisions and in the other pairs of the same kind, one entry for each feature or reading.

    `in_wrong`, `in_others`: of a feature the share of the pairs, 0…1, in which it counts; of a reading the mean number
    of its features that count. `p`: one-sided; `q`: over all that were tested (Benjamini–Hochberg).
    """

    names: Shaped[np.ndarray, " n"]
    in_wrong: Float64[np.ndarray, " n"]
    in_others: Float64[np.ndarray, " n"]
    p: Float64[np.ndarray, " n"]
    q: Float64[np.ndarray, " n"]

    @property
    def lift(self) -> Float64[np.ndarray, " n"]:
        """in_wrong / in_others; infinite where it counts in wrong decisions alone."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.in_wrong / self.in_others

    @property
    def order(self) -> Int64[np.ndarray, " n"]:
        """Places by rising p, those with the larger lift first among equals."""
        return np.lexsort((-self.lift, self.p))


def over_represented(
    fired: FiredFeatures, pairs: RowPairs, wrong: Bool[np.ndarray, " pairs"], *, genuine: bool
) -> tuple[Found, Found]:
    """The features, and the readings, that count in more of the wrong decisions than of the others, among the pairs of
    one person (`genuine`) or of different people.

    Features: upper tail of the hypergeometric distribution, over those that count in any pair. Readings: one-sided
    rank-sum test (Mann and Whitney 1947) of the number of their features that count, which many features of one reading
    do not saturate. Both take pairs for independent.
    """
    among = pairs.genuine == genuine
    first, second = (np.searchsorted(pairs.rows, rows[among]) for rows in (pairs.first, pairs.second))
    wrong = wrong[among]
    fires = fired.entries.table(np.ones(len(fired.entries.rows), np.float32)).tocsc()
    one, other = fires[:, first], fires[:, second]
    counts = one.multiply(other)
    if genuine:
        counts = one + other - 2 * counts
    counts = csr_array(counts)
    counts.eliminate_zeros()
    return _features(counts, wrong), _readings(counts, wrong, fired.kinds)


def _features(counts: csr_array, wrong: Bool[np.ndarray, " pairs"]) -> Found:
    n_wrong, n_others = int(wrong.sum()), int((~wrong).sum())
    in_all = np.diff(counts.indptr).astype(np.int64)
    in_wrong = np.asarray(counts @ wrong.astype(np.float64)).round().astype(np.int64)
    tested = np.flatnonzero(in_all)
    p = upper_tail(in_wrong[tested], population=np.array(len(wrong)), marked=in_all[tested], drawn=np.array(n_wrong))
    return Found(
        names=tested,
        in_wrong=in_wrong[tested] / n_wrong,
        in_others=(in_all - in_wrong)[tested] / n_others,
        p=p,
        q=benjamini_hochberg(p),
    )


def _readings(counts: csr_array, wrong: Bool[np.ndarray, " pairs"], kinds: Shaped[np.ndarray, " d_sae"]) -> Found:
    names = np.array(sorted(set(kinds) - {"unread"}), dtype=object)
    members = csr_array((names[:, None] == kinds).astype(np.float32))
    numbers = csr_array(members @ counts).toarray().astype(np.float64)
    p = np.ones(len(names))
    if len(names):
        found = mannwhitneyu(numbers[:, wrong], numbers[:, ~wrong], alternative="greater", axis=1, method="asymptotic")
        p = np.nan_to_num(found.pvalue, nan=1.0)
    return Found(
        names=names,
        in_wrong=numbers[:, wrong].mean(axis=1),
        in_others=numbers[:, ~wrong].mean(axis=1),
        p=p,
        q=benjamini_hochberg(p),
    )
