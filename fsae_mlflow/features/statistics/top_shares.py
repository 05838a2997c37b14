"""The attributes of the faces that fire each feature most."""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from numba import njit
from scipy.sparse import csr_array

from fsae_mlflow.features.statistics.hypergeometric import upper_tail
from fsae_mlflow.features.statistics.order import alike, by_activation, by_person
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.sae.fused.kernels import parallel_for

MOST_OF_A_PERSON = 3


@dataclass(frozen=True, kw_only=True)
class TopFaces:
    """The rows that fire each feature most, highest first, −1 past the last one; `first`: a person's highest face."""

    rows: Int32[np.ndarray, "d_sae k"]
    first: Bool[np.ndarray, "d_sae k"]


@dataclass(frozen=True, kw_only=True)
class TopShares:
    """The share (0 … 1) of each feature's top faces that have each attribute, the share of all faces that have it
    (`base`), and p.
    """

    share: Float64[np.ndarray, "d_sae m"]
    base: Float64[np.ndarray, " m"]
    p: Float64[np.ndarray, "d_sae m"]


def top_faces(entries: Entries, people: Int64[np.ndarray, " n_rows"], *, k: int, of_a_person: int) -> TopFaces:
    """The `k` faces that fire each feature most, at most `of_a_person` of one person; of equal ones the earlier row."""
    rows, first = np.full((entries.d_sae, k), -1, np.int32), np.zeros((entries.d_sae, k), bool)
    ordered = entries.rows[by_activation(entries)]
    n_people = int(people.max(initial=-1)) + 1
    parallel_for(_take, entries.d_sae, entries.indptr, ordered, people, n_people, of_a_person, rows, first)
    return TopFaces(rows=rows, first=first)


def top_shares(
    entries: Entries, labels: Float64[np.ndarray, "n_rows m"], people: Int64[np.ndarray, " n_rows"], *, k: int
) -> TopShares:
    """The attributes (0, 1, or nan for unknown) of the `k` top faces of each feature, at most 3 of a person.

    The top faces of an attribute are those among the faces where it is known. p counts each person once, by the highest
    face: it is the hypergeometric probability that as many of as many random faces, or of as many random people, have
    the attribute, whichever is larger (people with many pictures may have it more often than others). So one person, or
    one picture many times, has no small p. Share and p are nan where no face is known, share where none fires.
    """
    d_sae, m = entries.d_sae, labels.shape[1]
    found = TopShares(share=np.full((d_sae, m), np.nan), base=np.full(m, np.nan), p=np.full((d_sae, m), np.nan))
    for known, columns in alike(labels):
        faces, y = entries.of_rows(known), labels[np.ix_(known, columns)]
        top = top_faces(faces, people[known], k=k, of_a_person=MOST_OF_A_PERSON)
        n_top, n_people = (top.rows >= 0).sum(axis=1), top.first.sum(axis=1)
        found.share[:, columns] = _chosen(top, top.rows >= 0, y) / np.where(n_top > 0, n_top, np.nan)[:, None]
        found.base[columns] = y.mean(axis=0)
        of_people = by_person(people[known], y) / np.maximum(by_person(people[known], np.ones((len(y), 1))), 1)
        n_known = len(np.unique(people[known]))
        tails = np.maximum(_tails(k, len(y), y.sum(axis=0)), _tails(k, n_known, of_people.sum(axis=0)))
        with_it = _chosen(top, top.first, y).astype(np.int64)
        found.p[:, columns] = tails[np.arange(len(columns)), n_people[:, None], with_it]
    return found


def _tails(k: int, population: int, marked: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, "m drawn found"]:
    """The hypergeometric tail of each number found among each number drawn, up to `k`."""
    numbers = np.arange(k + 1)
    n_marked = marked.round().astype(np.int64)[:, None, None]
    return upper_tail(
        numbers, population=np.array(population), marked=n_marked, drawn=np.minimum(numbers, population)[:, None]
    )


def _chosen(
    top: TopFaces, chosen: Bool[np.ndarray, "d_sae k"], y: Float64[np.ndarray, "n m"]
) -> Float64[np.ndarray, "d_sae m"]:
    """The sum of y over each feature's chosen faces."""
    indptr = np.concatenate([[0], chosen.sum(axis=1).cumsum()])
    return csr_array((np.ones(indptr[-1]), top.rows[chosen], indptr), shape=(len(chosen), len(y))) @ y


@no_type_check
@njit(nogil=True, cache=True)
def _take(first_feature, last_feature, indptr, ordered, people, n_people, of_a_person, rows, first):
    """Walk down each feature's faces until `rows` are full."""
    taken = np.zeros(n_people, np.int64)
    for j in range(first_feature, last_feature):
        n = 0
        for e in range(indptr[j], indptr[j + 1]):
            if n == rows.shape[1]:
                break
            person = people[ordered[e]]
            if taken[person] < of_a_person:
                rows[j, n] = ordered[e]
                first[j, n] = taken[person] == 0
                taken[person] += 1
                n += 1
        for i in range(n):
            taken[people[rows[j, i]]] = 0
