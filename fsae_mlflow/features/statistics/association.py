"""Association of activations with properties of faces, tested by people."""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numba import njit
from scipy.sparse import csr_array
from scipy.special import ndtr
from scipy.stats import rankdata

from fsae_mlflow.features.statistics.order import Groups, alike, by_person, rank_scores, totals
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.sae.fused.kernels import parallel_for

FEWEST_PEOPLE = 10
"""Fewer people who fire a feature are no sample: p is 1."""
ROUNDING = 1e-12
"""The share of a sum of squares that rounding may leave of it."""


@dataclass(frozen=True, kw_only=True)
class Association:
    """How each feature goes with each property: correlation (−1 … 1), its standard error, t and two-sided p.

    All are nan where the property does not vary. Where the feature does not vary, or the property does not vary where
    the feature does, correlation, error and t are nan and p is 1. `n_people`: the people who fire the feature, among
    the faces that count.
    """

    rho: Float64[np.ndarray, "d_sae m"]
    error: Float64[np.ndarray, "d_sae m"]
    t: Float64[np.ndarray, "d_sae m"]
    p: Float64[np.ndarray, "d_sae m"]
    n_people: Int64[np.ndarray, "d_sae m"]

    @classmethod
    def unknown(cls, d_sae: int, m: int) -> "Association":
        """The association with properties that no face has."""
        rho, error, t, p = np.full((4, d_sae, m), np.nan)
        return cls(rho=rho, error=error, t=t, p=p, n_people=np.zeros((d_sae, m), np.int64))

    def inside(self, bound: float) -> Bool[np.ndarray, "d_sae m"]:
        """Whether the 95 % interval of rho lies inside ±`bound`; never where fewer than 10 people fire the feature."""
        return (self.n_people >= FEWEST_PEOPLE) & (np.abs(self.rho) + 1.96 * self.error <= bound)


def association(
    entries: Entries,
    properties: Float64[np.ndarray, "n_rows m"],
    people: Int64[np.ndarray, " n_rows"],
    *,
    controls: Float64[np.ndarray, "n_rows c"] | None = None,
) -> Association:
    """Spearman's ρ of activations with properties, partial given `controls`; its test counts each person once.

    nan is unknown: a property counts on the rows where it and the controls are known. The mid-ranks of the controls are
    regressed out of the mid-ranks of activation and property; of the residuals a and z, t = Σ a·z / √V with
    V = Σ_people (Σ_faces of the person a·z)², which allows for any dependence between the faces of one person: one
    person alone reaches |t| = 1. V is at least ‖a‖²‖z‖² / (faces − controls − 1), its value for independent faces, as
    people who all lack a rare attribute make the sum too small. p is two-sided normal, and 1 where fewer than 10 people
    fire the feature.
    """
    if controls is not None:
        properties = np.where(np.isnan(controls).any(axis=1, keepdims=True), np.nan, properties)
    found = Association.unknown(entries.d_sae, properties.shape[1])
    for known, columns in alike(properties):
        faces = entries.of_rows(known)
        z = rankdata(properties[np.ix_(known, columns)], axis=0)
        basis = _basis(z[:, :0] if controls is None else rankdata(controls[known], axis=0))
        scores = rank_scores(faces)
        explained = faces.sums(scores, basis)
        squares = totals(faces.feature, scores**2, faces.d_sae)
        norm = _norm(squares - (explained**2).sum(axis=1), squares)
        z = _unit(z - basis @ (basis.T @ z), z)
        groups, freedom = Groups.of(faces, people[known]), max(1, len(z) - basis.shape[1])
        _test(found, columns, faces, groups, people[known], scores, norm, z, basis, explained, freedom)
    return found


def association_within_people(
    entries: Entries, properties: Float64[np.ndarray, "n_rows m"], people: Int64[np.ndarray, " n_rows"]
) -> Association:
    """Pearson's correlation of activations with properties within people; its test counts each person once.

    Activations and properties (nan is unknown) are centered within each person: how a person always looks has no
    effect, and people with one face drop out. Of each feature the correlation is over the people who fire it. t and p
    are those of `association`; the bound of V divides by faces − people.
    """
    found = Association.unknown(entries.d_sae, properties.shape[1])
    for known, columns in alike(properties):
        n_faces = np.bincount(people[known], minlength=people.max() + 1)
        several = known & (n_faces > 1)[people]
        faces, who = entries.of_rows(several), people[several]
        values = faces.values.astype(np.float64)
        groups = Groups.of(faces, who)
        between = groups.sums(values) ** 2 / n_faces[groups.person]
        squares = totals(faces.feature, values**2, faces.d_sae)
        norm = _norm(squares - totals(groups.feature, between, faces.d_sae), squares)
        z = properties[np.ix_(several, columns)]
        z = _unit(z - (by_person(who, z) / np.maximum(n_faces[: who.max(initial=-1) + 1], 1)[:, None])[who], z)
        # Activations need no centering: the columns sum to 0 over the faces of a person.
        nothing, freedom = np.zeros((faces.d_sae, 0)), max(1, len(z) - len(np.unique(who)))
        _test(found, columns, faces, groups, who, values, norm, z, z[:, :0], nothing, freedom)
        # People who do not fire a feature say nothing of it; their faces must not make its correlation small.
        energy = by_person(who, z**2)
        fires = csr_array((np.ones(len(groups.person)), groups.person, groups.indptr), shape=(faces.d_sae, len(energy)))
        share = np.sqrt(fires @ energy)
        for measure in (found.rho, found.error):
            measure[:, columns] /= np.where(share > 0, share, np.nan)
    return found


def _basis(controls: Float64[np.ndarray, "n c"]) -> Float64[np.ndarray, "n k"]:
    """An orthonormal basis of the constant and the controls, which may depend on one another."""
    centered = controls - controls.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centered / np.maximum(np.linalg.norm(centered, axis=0), 1), full_matrices=False)
    return np.column_stack([np.full(len(controls), len(controls) ** -0.5), left[:, sizes**2 > ROUNDING]])


def _norm(squares: Float64[np.ndarray, " n"], of: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """The root of what is left of sums of squares; nan where that is nothing but rounding."""
    return np.sqrt(np.where(squares > ROUNDING * of, squares, np.nan))


def _unit(z: Float64[np.ndarray, "n m"], of: Float64[np.ndarray, "n m"]) -> Float64[np.ndarray, "n m"]:
    """The columns at norm 1, nan where nothing is left of them."""
    return z / _norm((z**2).sum(axis=0), (of**2).sum(axis=0))


def _test(
    found: Association,
    columns: Int64[np.ndarray, " m"],
    faces: Entries,
    groups: Groups,
    people: Int64[np.ndarray, " n_rows"],
    weights: Float64[np.ndarray, " n"],
    norm: Float64[np.ndarray, " d_sae"],
    z: Float64[np.ndarray, "n_rows m"],
    basis: Float64[np.ndarray, "n_rows k"],
    explained: Float64[np.ndarray, "d_sae k"],
    freedom: int,
) -> None:
    """Write to `columns` how activations, weights − basis · explained of the given norm, go with the unit columns z.

    A face that does not fire has weight 0, but not activation 0: what such people add to V is a closed form.
    """
    d_sae, m, k = len(norm), len(columns), basis.shape[1]
    offsets = np.stack([by_person(people, basis[:, [i]] * z) for i in range(k)], axis=1) if k else np.zeros((0, 0, m))
    squared = (explained[:, :, None] * explained[:, None]).reshape(d_sae, k * k)
    products, variance = np.zeros((d_sae, m)), squared @ np.einsum("pic,pjc->ijc", offsets, offsets).reshape(k * k, m)
    entries = (groups.indptr, groups.person, groups.starts, faces.rows[groups.order], weights[groups.order])
    parallel_for(_add_people, d_sae, *entries, z, explained, offsets, products, variance)
    found.rho[:, columns] = products / norm[:, None]
    error = np.sqrt(variance) / norm[:, None]
    # Where the property is constant on the faces that fire, rounding must not be divided by rounding.
    error = np.where(error**2 > ROUNDING, np.maximum(error, freedom**-0.5), np.nan)
    t = found.rho[:, columns] / error
    enough = groups.n_people[:, None] >= FEWEST_PEOPLE
    found.error[:, columns], found.t[:, columns] = error, t
    untested = np.where((z**2).sum(axis=0) > 0, 1.0, np.nan)
    found.p[:, columns] = np.where(enough & ~np.isnan(t), 2 * ndtr(-np.abs(t)), untested)
    found.n_people[:, columns] = groups.n_people[:, None]


@no_type_check
@njit(nogil=True, cache=True)
def _add_people(first, last, indptr, person, starts, rows, weights, z, explained, offsets, products, variance):
    """Add Σ weight · z to `products`, and to `variance`, which has every person's offset squared, who fires instead."""
    m = z.shape[1]
    sums, offset = np.empty(m), np.empty(m)
    for j in range(first, last):
        for g in range(indptr[j], indptr[j + 1]):
            sums[:] = 0
            offset[:] = 0
            for e in range(starts[g], starts[g + 1]):
                row, weight = z[rows[e]], weights[e]
                for c in range(m):
                    sums[c] += weight * row[c]
            for i in range(explained.shape[1]):
                row, weight = offsets[person[g], i], explained[j, i]
                for c in range(m):
                    offset[c] += weight * row[c]
            for c in range(m):
                products[j, c] += sums[c]
                variance[j, c] += (sums[c] - offset[c]) ** 2 - offset[c] ** 2
        for c in range(m):
            variance[j, c] = max(variance[j, c], 0.0)
