"""Error rates of a verification, of all pairs and of the pairs of each group of faces.

A pair is of a group where both of its faces are, each by its own label: a genuine pair whose two photos are labeled
differently is of neither group, and so is a pair with an unlabeled face.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from fsae_mlflow.verification.pairs import RowPairs
from fsae_mlflow.verification.protocol import threshold_at_far, wilson_interval

FEWEST_ERRORS = 10
"""False matches that a group's impostor pairs must be expected to have at the FAR, so that its rate is given."""
FEWEST_GENUINE = 100
FEWEST_PEOPLE = 20


@dataclass(frozen=True, kw_only=True)
class Errors:
    """`n_wrong` of `n` pairs were decided wrongly."""

    n_wrong: int
    n: int

    @classmethod
    def of(cls, wrong: Bool[np.ndarray, " pairs"], among: Bool[np.ndarray, " pairs"]) -> "Errors":
        """The wrong decisions among some pairs."""
        return cls(n_wrong=int((wrong & among).sum()), n=int(among.sum()))

    @property
    def rate(self) -> float:
        """Share of wrong decisions, 0…1."""
        return self.n_wrong / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the rate, as if the pairs were independent."""
        return wilson_interval(self.n_wrong, self.n) if self.n else (math.nan, math.nan)


@dataclass(frozen=True, kw_only=True)
class Group:
    """The pairs whose faces both have (`has`) or both lack an attribute; of all pairs where `attribute` is "".

    `impostor` and `genuine` pairs are decided at the threshold that all impostor pairs of the other folds give at the
    FAR `far`; `impostor_own` and `genuine_own` at that which the group's impostor pairs of the other folds give.
    `decided` and `decided_own` say whether these are enough to show the rate. `threshold`: the squared distance, 0…4,
    that all impostor pairs of the group give.
    """

    attribute: str
    has: bool
    far: float
    n_people: int
    decided: bool
    impostor: Errors
    genuine: Errors
    threshold: float
    decided_own: bool
    impostor_own: Errors
    genuine_own: Errors

    @property
    def name(self) -> str:
        """The group in words."""
        if not self.attribute:
            return "all pairs"
        return f"{self.attribute.replace('_', ' ')}: {'yes' if self.has else 'no'}"

    @property
    def of_few(self) -> bool:
        """Whether fewer than 20 people are in its pairs, so that no rate is given."""
        return bool(self.attribute) and self.n_people < FEWEST_PEOPLE

    @property
    def lacks(self) -> str:
        """What there is too little of where a rate is not given."""
        return "too few people" if self.of_few else "too few pairs"

    @property
    def has_fmr(self) -> bool:
        """Whether there are enough impostor pairs to give a rate of false matches: at least 10/far."""
        return self.decided and not self.of_few and self.far * self.impostor.n >= FEWEST_ERRORS - 1e-9

    @property
    def has_fnmr(self) -> bool:
        """Whether there are enough genuine pairs to give a rate of false non-matches: at least 100."""
        return self.decided and not self.of_few and self.genuine.n >= FEWEST_GENUINE

    @property
    def has_own(self) -> bool:
        """Whether there are enough impostor pairs to give rates at the group's own threshold."""
        return self.has_fmr and self.decided_own

    @property
    def remark(self) -> str:
        """Why a rate is not given, in words; "" where both are."""
        if self.of_few:
            return self.lacks
        lacking = [kind for kind, known in (("impostor", self.has_fmr), ("genuine", self.has_fnmr)) if not known]
        return f"too few {' and '.join(lacking)} pairs" if lacking else ""


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Which pairs are accepted at the FAR `far`, each fold at the threshold of the other folds.

    `possible`: whether the other folds always have the 1/far impostor pairs that can show this rate.
    """

    accepted: Bool[np.ndarray, " pairs"]
    possible: bool

    @classmethod
    def of(
        cls, distances: Float64[np.ndarray, " pairs"], pairs: RowPairs, among: Bool[np.ndarray, " pairs"], far: float
    ) -> "Decisions":
        """The decisions at thresholds that impostor pairs of `among` give."""
        impostors = among & ~pairs.genuine
        thresholds = np.array(
            [threshold_at_far(distances[impostors & (pairs.fold != fold)], far) for fold in range(pairs.n_folds)]
        )
        return cls(accepted=distances < thresholds[pairs.fold], possible=not np.isnan(thresholds).any())


def audit_groups(
    distances: Float64[np.ndarray, " pairs"],
    pairs: RowPairs,
    labels: Mapping[str, Float64[np.ndarray, " n"]],
    people: Int64[np.ndarray, " n"],
    *,
    far: float,
) -> list[Group]:
    """All pairs, and then the two groups of each attribute, given the people and the labels (0, 1, or nan: unknown) of
    all rows.
    """
    all_of_them = np.ones(len(pairs), bool)
    common = Decisions.of(distances, pairs, all_of_them, far)

    def group(attribute: str, has: bool, among: Bool[np.ndarray, " pairs"]) -> Group:
        own = Decisions.of(distances, pairs, among, far)
        impostor, genuine = among & ~pairs.genuine, among & pairs.genuine
        return Group(
            attribute=attribute,
            has=has,
            far=far,
            n_people=len(np.unique(people[np.concatenate([pairs.first[among], pairs.second[among]])])),
            decided=common.possible,
            impostor=Errors.of(common.accepted, impostor),
            genuine=Errors.of(~common.accepted, genuine),
            threshold=threshold_at_far(distances[impostor], far),
            decided_own=own.possible,
            impostor_own=Errors.of(own.accepted, impostor),
            genuine_own=Errors.of(~own.accepted, genuine),
        )

    groups = [group("", True, all_of_them)]
    for attribute, values in labels.items():
        first, second = values[pairs.first], values[pairs.second]
        groups += [group(attribute, bool(value), (first == value) & (second == value)) for value in (1, 0)]
    return groups
