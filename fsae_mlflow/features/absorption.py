"""Absorption: the feature of a general attribute fails to fire where that of a special one fires.

After Chanin et al. 2024 (arXiv 2409.14507) and SAEBench, where a letter is the general and a word the special feature.
Here the labels themselves say which attribute is special: a child, at least 95 % of whose faces are those of its
parent, as Goatee is of "not No_Beard".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from fsae_mlflow.features.probes import mean_difference
from fsae_mlflow.features.statistics.association import FEWEST_PEOPLE
from fsae_mlflow.features.statistics.order import Groups
from fsae_mlflow.sae.entries import Entries

INSIDE, LIFT = 0.95, 1.5
"""Least share of a child's faces that are the parent's, and least ratio of it to the parent's share of all faces."""


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """A parent attribute, or its absence ("not …"), and a child attribute; which rows show them, and where both are
    known.
    """

    parent: str
    child: str
    in_parent: Bool[np.ndarray, " n_rows"]
    in_child: Bool[np.ndarray, " n_rows"]
    known: Bool[np.ndarray, " n_rows"]


@dataclass(frozen=True, kw_only=True)
class Absorption:
    """How the parent's feature fires on confirmation people.

    `rate`: share, 0…1, of the child's faces on which the parent's feature is silent and the child's fires. `by_chance`:
    what it would be if the child changed nothing: the share of the parent's other faces on which the parent's feature
    is silent, times the share of the child's faces on which the child's fires.
    """

    hierarchy: Hierarchy
    features: tuple[int, int]
    rate: float
    by_chance: float


def absorption_metrics(found: list[Absorption]) -> dict[str, float]:
    """The means over hierarchies by name; none without a hierarchy."""
    if not found:
        return {}
    return {
        "absorption/n_hierarchies": float(len(found)),
        "absorption/rate": float(np.mean([one.rate for one in found])),
        "absorption/by_chance": float(np.mean([one.by_chance for one in found])),
    }


def absorption(
    entries: Entries,
    booleans: Mapping[str, Float64[np.ndarray, " n_rows"]],
    *,
    people: Int64[np.ndarray, " n_rows"],
    confirm: Bool[np.ndarray, " n_rows"],
) -> list[Absorption]:
    """The absorption in each hierarchy of the attributes (0 or 1, nan where unknown).

    `people` are codes from 0; `confirm` marks the rows of the confirmation people. Features are chosen on the discovery
    people, among those that ten of them fire: the parent's differs most between the parent's faces and all others, the
    child's between the child's faces and the parent's others, in standard deviations (`mean_difference`). A hierarchy
    without such features is left out; where both are one feature the rate is 0.
    """
    eligible = Groups.of(entries.of_rows(~confirm), people[~confirm]).n_people >= FEWEST_PEOPLE
    of_parents: dict[str, int] = {}
    found = []
    for one in hierarchies(booleans, people=people, confirm=confirm):
        inside = one.known & one.in_parent
        if one.parent not in of_parents:
            of_parents[one.parent] = _strongest(entries, one.in_parent, one.known & ~confirm, eligible)
        parent, child = of_parents[one.parent], _strongest(entries, one.in_child, inside & ~confirm, eligible)
        if min(parent, child) < 0:
            continue
        fires_parent, fires_child = _fires(entries, parent), _fires(entries, child)
        of_child, of_others = inside & one.in_child & confirm, inside & ~one.in_child & confirm
        found.append(
            Absorption(
                hierarchy=one,
                features=(parent, child),
                rate=float((fires_child & ~fires_parent)[of_child].mean()),
                by_chance=float((~fires_parent)[of_others].mean() * fires_child[of_child].mean()),
            )
        )
    return found


def hierarchies(
    booleans: Mapping[str, Float64[np.ndarray, " n_rows"]],
    *,
    people: Int64[np.ndarray, " n_rows"],
    confirm: Bool[np.ndarray, " n_rows"],
) -> Iterator[Hierarchy]:
    """Each parent and child of the attributes: at least 95 % of the child's faces are the parent's, and 1.5 times as
    many as of all faces; on either side ten people show the child, ten the parent without it, and ten neither.
    """
    for name, labels in booleans.items():
        for parent, value in ((name, 1), (f"not {name}", 0)):
            for child, special in booleans.items():
                known = ~np.isnan(labels) & ~np.isnan(special)
                in_parent, in_child = known & (labels == value), known & (special == 1)
                if child == name or not in_child.any():
                    continue
                share, base = in_parent[in_child].mean(), in_parent[known].mean()
                groups = (in_parent & in_child, in_parent & ~in_child, known & ~in_parent)
                if share >= max(INSIDE, LIFT * base) and _have_people(groups, people, confirm):
                    yield Hierarchy(parent=parent, child=child, in_parent=in_parent, in_child=in_child, known=known)


def _have_people(
    groups: tuple[Bool[np.ndarray, " n_rows"], ...],
    people: Int64[np.ndarray, " n_rows"],
    confirm: Bool[np.ndarray, " n_rows"],
) -> bool:
    return all(
        len(np.unique(people[group & (confirm == side)])) >= FEWEST_PEOPLE for group in groups for side in (False, True)
    )


def _strongest(
    entries: Entries,
    has: Bool[np.ndarray, " n_rows"],
    rows: Bool[np.ndarray, " n_rows"],
    eligible: Bool[np.ndarray, " d_sae"],
) -> int:
    """The eligible feature that fires most on the rows that have an attribute, beside the other rows; −1 if none."""
    difference = np.where(eligible, mean_difference(entries.of_rows(rows), has[rows]), 0.0)
    best = int(difference.argmax())
    return best if difference[best] > 0 else -1


def _fires(entries: Entries, feature: int) -> Bool[np.ndarray, " n_rows"]:
    fires = np.zeros(entries.n_rows, bool)
    fires[entries.rows[entries.place_of(feature)]] = True
    return fires
