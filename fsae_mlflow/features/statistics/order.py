"""The order of activations within each feature, and of entries by person."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32, Int64
from scipy.sparse import csr_array

from fsae_mlflow.sae.entries import Entries


def by_activation(entries: Entries) -> Int64[np.ndarray, " n"]:
    """The entries of each feature by falling activation, equal ones by row."""
    # The bits of positive floats sort as the numbers do.
    falling = np.int64(2**31 - 1) - entries.values.view(np.int32)
    return np.argsort((entries.feature.astype(np.int64) << 32) | falling, kind="stable")


def last_of_equals(feature: Int32[np.ndarray, " n"], values: Float32[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whether the next entry, of entries in order, is of another activation or of another feature."""
    last = np.ones(len(values), bool)
    last[:-1] = (values[1:] != values[:-1]) | (feature[1:] != feature[:-1])
    return last


def rank_scores(entries: Entries) -> Float64[np.ndarray, " n"]:
    """The mid-rank of each entry among the rows of its feature, minus the mid-rank of the rows that do not fire.

    Above 0 and at most n_rows − ½; equal activations share their mean rank.
    """
    order = by_activation(entries)
    stops = np.flatnonzero(last_of_equals(entries.feature, entries.values[order])) + 1
    sizes = np.diff(stops, prepend=0)
    place = np.repeat(stops - (sizes + 1) / 2, sizes) - entries.indptr[entries.feature]
    scores = np.empty(len(order))
    scores[order] = (entries.n_rows + entries.counts[entries.feature] - 1) / 2 - place
    return scores


def by_person(people: Int64[np.ndarray, " n"], z: Float64[np.ndarray, "n m"]) -> Float64[np.ndarray, "n_people m"]:
    """The sum of the rows of each person."""
    shape = (int(people.max(initial=-1)) + 1, len(z))
    return csr_array((np.ones(len(z)), (people, np.arange(len(z)))), shape=shape) @ z


def totals(
    feature: Int[np.ndarray, " n"], weights: Float64[np.ndarray, " n"], d_sae: int
) -> Float64[np.ndarray, " d_sae"]:
    """Σ weight of each feature, given the feature of each weight."""
    return np.bincount(feature, weights, minlength=d_sae).astype(np.float64)


def numbers_within(people: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The number of each row among the rows of its person, from 0."""
    order = np.argsort(people, kind="stable")
    starts = np.searchsorted(people[order], people[order])
    numbers = np.empty(len(people), np.int64)
    numbers[order] = np.arange(len(people)) - starts
    return numbers


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Entries by feature and person.

    The groups of feature j are `indptr[j] … indptr[j + 1]`; group g is of `person[g]` and holds the entries
    `order[starts[g] : starts[g + 1]]`, in ascending row.
    """

    indptr: Int64[np.ndarray, " d_sae_and_1"]
    person: Int64[np.ndarray, " n_groups"]
    starts: Int64[np.ndarray, " n_groups_and_1"]
    order: Int64[np.ndarray, " n"]

    @classmethod
    def of(cls, entries: Entries, people: Int64[np.ndarray, " n_rows"]) -> "Groups":
        """The groups of entries, given the person of each row."""
        n_people = int(people.max(initial=-1)) + 1
        key = entries.feature * np.int64(n_people) + people[entries.rows]
        order = np.argsort(key, kind="stable")
        key = key[order]
        starts = np.flatnonzero(np.diff(key, prepend=-1))
        feature, person = np.divmod(key[starts], max(n_people, 1))
        n_groups = np.bincount(feature, minlength=entries.d_sae)
        return cls(
            indptr=np.concatenate([[0], n_groups.cumsum()]),
            person=person,
            starts=np.append(starts, len(order)),
            order=order,
        )

    @property
    def n_people(self) -> Int64[np.ndarray, " d_sae"]:
        """The people who fire each feature."""
        return np.diff(self.indptr)

    @property
    def feature(self) -> Int64[np.ndarray, " n_groups"]:
        """The feature of each group."""
        return np.repeat(np.arange(len(self.indptr) - 1), self.n_people)

    def sums(self, weights: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n_groups"]:
        """Σ weight over each group, given one weight for each entry."""
        return np.add.reduceat(weights[self.order], self.starts[:-1]) if len(self.person) else np.zeros(0)


def alike(
    columns: Float64[np.ndarray, "n_rows m"],
) -> Iterator[tuple[Bool[np.ndarray, " n_rows"], Int64[np.ndarray, " same"]]]:
    """The columns that are known (not nan) on the same rows, together: the mask of these rows, and the columns.

    Columns that are known nowhere are left out.
    """
    together: dict[bytes, list[int]] = {}
    known = ~np.isnan(columns)
    for column in range(columns.shape[1]):
        together.setdefault(known[:, column].tobytes(), []).append(column)
    for same in together.values():
        if known[:, same[0]].any():
            yield known[:, same[0]], np.array(same)
