"""What is confirmed of each feature: found on one half of the people, tested on the other half."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Shaped

from fsae_mlflow.features.statistics.association import (
    FEWEST_PEOPLE,
    Association,
    association,
    association_within_people,
)
from fsae_mlflow.features.statistics.confounding import partial, rank_correlations
from fsae_mlflow.features.statistics.discrimination import auroc, average_precision
from fsae_mlflow.features.statistics.identity import identity
from fsae_mlflow.features.statistics.multiple import benjamini_hochberg
from fsae_mlflow.features.statistics.order import Groups
from fsae_mlflow.features.statistics.top_shares import top_shares
from fsae_mlflow.sae.entries import Entries

Columns = dict[str, np.ndarray]

PROPERTIES = ("sharpness", "interocular", "norm", "face_size", "roll", "brightness", "grayness")
QUALITY = PROPERTIES[:3]
POSES = ("right", "left", "turned", "frontal")
"""The poses that can be confirmed."""
N_TESTED, N_SHOWN = 30, 20
"""The top faces whose attributes are tested, and those whose share is reported."""
MAX_P, MAX_Q = 0.01, 0.05
SMALL = 0.1
"""A correlation inside ±0.1 is small."""
WEAK = 0.2
"""A correlation within people inside ±0.2 is weak; it is over the people who fire a feature, often few."""
STRONG, LIFT, COMMON = 0.80, 1.5, 0.95
PUREST = 0.5


@dataclass(frozen=True, kw_only=True)
class ReadFaces:
    """The faces that features are read on.

    `people`: codes from 0, whose names are `names`. `confirm`: the faces of the people on whom readings are confirmed.
    `properties`: yaw and PROPERTIES; `booleans`: attributes, 0 or 1; `numbers`: other labels; nan is unknown, and so is
    a property that is not there. `judge`: L2-normalized templates of another recognizer.
    """

    people: Int64[np.ndarray, " n_rows"]
    names: Sequence[str]
    confirm: Bool[np.ndarray, " n_rows"]
    properties: Mapping[str, Float64[np.ndarray, " n_rows"]]
    booleans: Mapping[str, Float64[np.ndarray, " n_rows"]]
    numbers: Mapping[str, Float64[np.ndarray, " n_rows"]]
    judge: Float[np.ndarray, "n_rows d"] | None = None

    def property(self, name: str) -> Float64[np.ndarray, " n_rows"]:
        """A property of each face."""
        return self.properties.get(name, np.full(len(self.people), np.nan))


@dataclass(frozen=True, kw_only=True)
class Side:
    """The features of some of the faces, and the people of these faces."""

    mask: Bool[np.ndarray, " n_all"]
    entries: Entries
    people: Int64[np.ndarray, " n_rows"]

    @classmethod
    def of(cls, entries: Entries, people: Int64[np.ndarray, " n_all"], mask: Bool[np.ndarray, " n_all"]) -> "Side":
        """The faces in `mask`."""
        return cls(mask=mask, entries=entries.of_rows(mask), people=people[mask])


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The faces on which readings are found, those on which they are confirmed, and all.

    `judged`: at least 10 people fire the feature on either side.
    """

    discovery: Side
    confirmation: Side
    all: Side
    judged: Bool[np.ndarray, " d_sae"]

    @classmethod
    def of(cls, entries: Entries, faces: ReadFaces) -> "Sides":
        """The sides of the read faces."""
        every = np.ones(entries.n_rows, bool)
        discovery, confirmation, all_ = (
            Side.of(entries, faces.people, mask) for mask in (~faces.confirm, faces.confirm, every)
        )
        n_people = [Groups.of(side.entries, side.people).n_people for side in (discovery, confirmation)]
        return cls(
            discovery=discovery, confirmation=confirmation, all=all_, judged=np.min(n_people, axis=0) >= FEWEST_PEOPLE
        )


def attribute_columns(sides: Sides, faces: ReadFaces) -> Columns:
    """The attribute that most distinguishes the top faces of each feature, and whether other people confirm it.

    Of the attributes it has the smallest p among the 30 top labeled faces of the discovery side (of equal ones, the
    largest share). Where that p does not hold for as many attributes as there are (Bonferroni), the number whose
    association has a smaller p takes its place, as "age +" or "age −". It is confirmed where p < 0.01 on both sides,
    with the same sign, and q < 0.05, of the confirmation p over the judged features. It is strong where it is confirmed
    and `is_strong` holds of the 20 top labeled faces of the confirmation side; a number is never strong.

    attribute_share (of 20), _base, _auroc, _ap, _p, _q and _rho (Spearman) are of the confirmation side; the first four
    are nan for numbers. confounder: the label with the largest |φ| (Spearman's ρ of numbers) with it;
    attribute_rho_given_confounder: the partial correlation.
    """
    names, n_booleans = [*faces.booleans, *faces.numbers], len(faces.booleans)
    labels = side_by_side([*faces.booleans.values(), *faces.numbers.values()], len(faces.people))
    found, other = sides.discovery, sides.confirmation
    labels_found, labels_other = labels[found.mask], labels[other.mask]
    booleans_found, booleans_other = labels_found[:, :n_booleans], labels_other[:, :n_booleans]

    top = top_shares(found.entries, booleans_found, found.people, k=N_TESTED)
    numbers = association(found.entries, labels_found[:, n_booleans:], found.people)
    p_found = np.hstack([top.p, numbers.p])
    best = _best(top.p, top.share)
    number = _best(numbers.p, np.abs(numbers.t))
    number = np.where(number < 0, -1, number + n_booleans)
    p_best, p_number = (np.nan_to_num(_at(p_found, column), nan=np.inf) for column in (best, number))
    column = np.where((p_best < MAX_P / max(n_booleans, 1)) | (p_best <= p_number), best, number)
    column = np.where(sides.judged, column, -1)

    shown = top_shares(other.entries, booleans_other, other.people, k=N_SHOWN)
    relation = association(other.entries, labels_other, other.people)
    same_sign = np.sign(relation.t[:, n_booleans:]) == np.sign(numbers.t)
    p_booleans = top_shares(other.entries, booleans_other, other.people, k=N_TESTED).p
    p = _at(np.hstack([p_booleans, np.where(same_sign, relation.p[:, n_booleans:], 1.0)]), column)
    q = benjamini_hochberg(p)
    confirmed = (_at(p_found, column) < MAX_P) & (p < MAX_P) & (q < MAX_Q)
    boolean = np.where(column < n_booleans, column, -1)
    share, base = _at(shown.share, boolean), np.append(shown.base, np.nan)[boolean]

    correlations = rank_correlations(labels_other)
    np.fill_diagonal(correlations, np.nan)
    confounders = np.append(_best(-np.abs(correlations), np.abs(correlations)), -1)
    confounder = confounders[column]
    rho = _at(relation.rho, column)
    between = np.pad(correlations, (0, 1), constant_values=np.nan)[column, confounder]
    falls = (column >= n_booleans) & (_at(np.hstack([top.p, numbers.t]), column) < 0)
    signed = [*faces.booleans, *(f"{name} +" for name in faces.numbers), *(f"{name} −" for name in faces.numbers)]
    return {
        "attribute": named(signed, column + falls * len(faces.numbers)),
        "attribute_share": share,
        "attribute_base": base,
        "attribute_auroc": _at(auroc(other.entries, booleans_other), boolean),
        "attribute_ap": average_precision(other.entries, booleans_other, boolean),
        "attribute_p": p,
        "attribute_q": q,
        "attribute_confirmed": confirmed,
        "attribute_strong": confirmed & is_strong(share, base),
        "confounder": named(names, confounder),
        "attribute_rho": rho,
        "attribute_rho_given_confounder": partial(rho, _at(relation.rho, confounder), between),
    }


def is_strong(share: Float64[np.ndarray, " n"], base: Float64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whether a share of top faces is at least 80 %, and 1.5 × the base rate or 95 %."""
    return share >= np.maximum(STRONG, np.minimum(LIFT * base, COMMON))


def pose_columns(sides: Sides, faces: ReadFaces) -> Columns:
    """Whether features follow the pose of a face, among the faces of one person.

    pose: "right" or "left" (the side of the image that the nose points to), "turned" or "frontal" (|yaw|), where yaw or
    |yaw| is confirmed: q < 0.05 on the discovery side over the judged features, p < 0.01 on the confirmation side, same
    sign. Of both, that with the larger |t| on the discovery side. "invariant" where on all faces the 95 % intervals of
    both correlations lie inside ±0.2 (yaw explains less than 4 % of what the activation varies within people), else
    "undetermined"; "unknown" where yaw is not known. yaw_ and turn_ rho and p
    are of the confirmation side, q of the discovery side.
    """
    yaw = faces.property("yaw")
    values = np.stack([yaw, np.abs(yaw)], axis=1)
    found, other, every = (
        association_within_people(side.entries, values[side.mask], side.people)
        for side in (sides.discovery, sides.confirmation, sides.all)
    )
    q, confirmed = confirmed_by_others(found, other, sides.judged)
    strongest = np.where(confirmed, np.abs(found.t), 0).argmax(axis=1)
    names = np.array([["left", "right"], ["frontal", "turned"]])[strongest, (_at(other.t, strongest) > 0).astype(int)]
    pose = np.select(
        [confirmed.any(axis=1), every.inside(WEAK).all(axis=1)],
        [names, "invariant"],
        "unknown" if np.isnan(yaw).all() else "undetermined",
    )
    return {"pose": pose.astype(object)} | _association_columns(("yaw", "turn"), other, q)


def property_columns(sides: Sides, faces: ReadFaces) -> Columns:
    """Whether features follow properties of the picture, beyond what yaw and |yaw| explain where they are known.

    NAME_confirmed: as for the pose; NAME_rho and _p are of the confirmation side, _q of the discovery side. quality:
    "equivariant" where sharpness, interocular or norm is confirmed with |ρ| ≥ 0.1; "invariant" where on all faces the
    95 % intervals of those that are known lie inside ±0.1, else "undetermined"; "unknown" where none is known.
    """
    values = side_by_side([faces.property(name) for name in PROPERTIES], len(faces.people))
    yaw = faces.property("yaw")
    controls = None if np.isnan(yaw).all() else np.stack([yaw, np.abs(yaw)], axis=1)
    found, other, every = (
        association(
            side.entries,
            values[side.mask],
            side.people,
            controls=None if controls is None else controls[side.mask],
        )
        for side in (sides.discovery, sides.confirmation, sides.all)
    )
    q, confirmed = confirmed_by_others(found, other, sides.judged)
    large = confirmed & (np.abs(other.rho) >= SMALL)
    known = ~np.isnan(values[:, : len(QUALITY)]).all(axis=0)
    quality = np.select(
        [
            large[:, : len(QUALITY)].any(axis=1),
            every.inside(SMALL)[:, : len(QUALITY)][:, known].all(axis=1) & known.any(),
        ],
        ["equivariant", "invariant"],
        "undetermined" if known.any() else "unknown",
    )
    flags = {f"{name}_confirmed": confirmed[:, i] for i, name in enumerate(PROPERTIES)}
    return {"quality": quality.astype(object)} | _association_columns(PROPERTIES, other, q) | flags


def identity_columns(entries: Entries, faces: ReadFaces) -> Columns:
    """The person whom each feature fires for most; confirmed on other pictures of the person, not on other people.

    identity_confirmed: p < 0.01, q < 0.05 over the features that were tested, and purity ≥ 0.5. identity_base: share
    of all faces that are the person.
    """
    found = identity(entries, faces.people)
    q = benjamini_hochberg(found.p)
    return {
        "identity": named(faces.names, found.person),
        "identity_base": np.append(np.bincount(faces.people) / len(faces.people), np.nan)[found.person],
        "purity": found.purity,
        "identity_entropy": found.entropy,
        "identity_auroc": found.auroc,
        "identity_p": found.p,
        "identity_q": q,
        "identity_confirmed": (found.p < MAX_P) & (q < MAX_Q) & (found.purity >= PUREST),
    }


def confirmed_by_others(
    found: Association, other: Association, judged: Bool[np.ndarray, " d_sae"]
) -> tuple[Float64[np.ndarray, "d_sae m"], Bool[np.ndarray, "d_sae m"]]:
    """The q over the judged features; and where q < 0.05, and p < 0.01 with the same sign on other people."""
    q = np.stack([benjamini_hochberg(np.where(judged, p, np.nan)) for p in found.p.T], axis=1)
    return q, (q < MAX_Q) & (other.p < MAX_P) & (np.sign(found.t) == np.sign(other.t))


def side_by_side(columns: Sequence[Float64[np.ndarray, " n"]], n: int) -> Float64[np.ndarray, "n m"]:
    """Columns of `n` rows as one array, also where there is none."""
    return np.stack(columns, axis=1) if columns else np.zeros((n, 0))


def named(names: Sequence[str], index: Int64[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """The names at an index; "" at −1."""
    return np.array([*names, ""], object)[index]


def _best(p: Float64[np.ndarray, "n m"], merit: Float64[np.ndarray, "n m"]) -> Int64[np.ndarray, " n"]:
    """The column with the smallest p of each row, of equal ones that of most merit; −1 where all are nan."""
    nothing = np.full((len(p), 1), np.inf)
    p = np.hstack([np.nan_to_num(p, nan=np.inf), nothing])
    merit = np.hstack([np.nan_to_num(merit, nan=-1.0), -nothing])
    smallest = p.min(axis=1)
    column = np.where(p == smallest[:, None], merit, -np.inf).argmax(axis=1)
    return np.where(np.isinf(smallest), -1, column)


def _at(values: Float64[np.ndarray, "n m"], column: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """One value of each row; nan in column −1."""
    return np.hstack([values, np.full((len(values), 1), np.nan)])[np.arange(len(column)), column]


def _association_columns(names: Sequence[str], other: Association, q: Float64[np.ndarray, "d_sae m"]) -> Columns:
    values = {"rho": other.rho, "p": other.p, "q": q}
    return {f"{name}_{kind}": v[:, i] for i, name in enumerate(names) for kind, v in values.items()}
