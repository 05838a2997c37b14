"""k-sparse probes: how well an attribute of a face is read from the k features that tell most of it.

As in SAEBench (Karvonen et al. 2025, arXiv 2503.09532; after Gurnee et al. 2023, arXiv 2305.01610) the features are
chosen by their mean difference, and a logistic regression reads them; both see the discovery people only, and the probe
is measured on the confirmation people. Other than there, the difference is divided by the feature's standard deviation,
for features have different units.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from fsae_mlflow.features.statistics.association import FEWEST_PEOPLE
from fsae_mlflow.features.statistics.order import Groups, numbers_within
from fsae_mlflow.features.statistics.top_shares import MOST_OF_A_PERSON
from fsae_mlflow.progress import progress
from fsae_mlflow.sae.entries import Entries

SIZES = (1, 2, 5, 10, 20, 50, 100)
N_TOP = 20


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Measures of the probes of each attribute (rows) with each of SIZES features (columns), on confirmation people.

    `auroc`: of the probe's score, 0…1. `precision`: share, 0…1, of the 20 faces of the highest score that have the
    attribute, at most 3 of them of one person. `base`: share of all labeled faces that have it.
    """

    attributes: list[str]
    base: Float64[np.ndarray, " attributes"]
    auroc: Float64[np.ndarray, "attributes sizes"]
    precision: Float64[np.ndarray, "attributes sizes"]

    @property
    def metrics(self) -> dict[str, float]:
        """The means over attributes by name; none without an attribute."""
        if not self.attributes:
            return {}
        found = {"probes/n_attributes": float(len(self.attributes)), "probes/base": float(self.base.mean())}
        for name, values in (("auroc", self.auroc), ("precision", self.precision)):
            means = values.mean(axis=0).tolist()
            found |= {f"probes/{name}_k{size}": mean for size, mean in zip(SIZES, means, strict=True)}
        return found


def probes(
    entries: Entries,
    booleans: Mapping[str, Float64[np.ndarray, " n_rows"]],
    *,
    people: Int64[np.ndarray, " n_rows"],
    confirm: Bool[np.ndarray, " n_rows"],
) -> Probes:
    """Probe each attribute (0 or 1, nan where unknown) that ten people have and ten lack on either side.

    `people` are codes from 0; `confirm` marks the rows of the confirmation people. A feature can be chosen where ten
    discovery people fire it; where there are fewer than k such features, a probe has all of them.
    """
    table = entries.table(entries.values)
    eligible = Groups.of(entries.of_rows(~confirm), people[~confirm]).n_people >= FEWEST_PEOPLE
    judged = [name for name, labels in booleans.items() if can_be_probed(labels, people, confirm)]
    if not eligible.any():
        judged = []
    base, auroc, precision = [], [], []
    for name in progress(judged, total=len(judged), label="probes", unit="attributes"):
        known = ~np.isnan(booleans[name])
        here = confirm[known]
        has = booleans[name][known] > 0
        score = np.where(eligible, np.abs(mean_difference(entries.of_rows(known & ~confirm), has[~here])), -1)
        chosen = np.argsort(-score, kind="stable")[: min(max(SIZES), int(eligible.sum()))]
        x = table[chosen].toarray().T[known].astype(np.float64)
        deviation = x[~here].std(axis=0)
        x = (x - x[~here].mean(axis=0)) / np.where(deviation > 0, deviation, 1)
        # The fits are small: several threads would wait for one another longer than they compute.
        with threadpool_limits(1):
            fits = [LogisticRegression(max_iter=1000).fit(x[~here, :k], has[~here]) for k in SIZES]
        scores = [fit.decision_function(x[here, :k]) for fit, k in zip(fits, SIZES, strict=True)]
        base.append(has[here].mean())
        auroc.append([roc_auc_score(has[here], score) for score in scores])
        precision.append([_precision(score, has[here], people[known][here]) for score in scores])
    shape = (len(judged), len(SIZES))
    return Probes(
        attributes=judged,
        base=np.array(base, np.float64),
        auroc=np.array(auroc, np.float64).reshape(shape),
        precision=np.array(precision, np.float64).reshape(shape),
    )


def mean_difference(entries: Entries, has: Bool[np.ndarray, " n_rows"]) -> Float64[np.ndarray, " d_sae"]:
    """Mean activation of the rows that have an attribute minus that of the others, in standard deviations.

    The deviation is that within the two groups, pooled; 0 for a feature that never fires, infinite where the two groups
    differ and neither varies.
    """
    values = entries.values.astype(np.float64)
    sides = np.stack([has, ~has], axis=1).astype(np.float64)
    n = sides.sum(axis=0)
    means = entries.sums(values, sides) / n
    within = (entries.sums(values**2, sides) - n * means**2).sum(axis=1)
    difference = means[:, 0] - means[:, 1]
    deviation = np.sqrt(within.clip(min=0) / (n.sum() - 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(difference == 0, 0.0, difference / deviation)


def can_be_probed(
    labels: Float64[np.ndarray, " n_rows"], people: Int64[np.ndarray, " n_rows"], confirm: Bool[np.ndarray, " n_rows"]
) -> bool:
    """Whether ten people have an attribute (0 or 1, nan where unknown) and ten lack it, on either side."""
    groups = ((labels == value) & (confirm == side) for value in (0, 1) for side in (False, True))
    return all(len(np.unique(people[group])) >= FEWEST_PEOPLE for group in groups)


def _precision(score: Float64[np.ndarray, " n"], has: Bool[np.ndarray, " n"], people: Int64[np.ndarray, " n"]) -> float:
    """Share of the top rows that have the attribute; of equal scores the earlier row comes first."""
    order = np.argsort(-score, kind="stable")
    allowed = order[numbers_within(people[order]) < MOST_OF_A_PERSON]
    return float(has[allowed[:N_TOP]].mean())
