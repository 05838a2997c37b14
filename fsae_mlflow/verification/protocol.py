"""Accuracy of the decision, by distance, whether two faces show the same person.

All functions take squared Euclidean distances between L2-normalized templates (0 same direction, 2 orthogonal, 4
opposite), and which pairs are genuine. A pair is accepted where its distance is strictly below the threshold.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.stats import binomtest

from fsae_mlflow.errors import UserError

GRID: Float64[np.ndarray, " thresholds"] = np.arange(0, 4, 0.01)


def squared_distances(
    a: Float[np.ndarray, "pairs d"], b: Float[np.ndarray, "pairs d"]
) -> Float64[np.ndarray, " pairs"]:
    """Squared Euclidean distance, 0…4, between rows after L2 normalization; a row of zeros stays zero."""
    a, b = (x.astype(np.float64) for x in (a, b))
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny) for x in (a, b))
    return np.square(a - b).sum(axis=1)


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """Accuracy, 0…1, of every fold at the threshold that was best on all other folds, and which of all pairs were
    decided correctly.
    """

    accuracies: Float64[np.ndarray, " folds"]
    thresholds: Float64[np.ndarray, " folds"]
    correct: Bool[np.ndarray, " pairs"]

    @property
    def n_correct(self) -> int:
        """Number of pairs, of all folds, that were decided correctly."""
        return int(self.correct.sum())

    @property
    def mean(self) -> float:
        """Mean accuracy over folds."""
        return float(self.accuracies.mean())

    @property
    def std(self) -> float:
        """Standard deviation over the k folds with divisor k (ddof 0), as in facenet and insightface; the paper's ± is
        taken to be the same.
        """
        return float(self.accuracies.std())

    @property
    def standard_error(self) -> float:
        """σ/√k for k folds, with the σ of `std`.

        LFW's own report uses divisor k − 1 in σ, which gives 5 % more for ten folds.
        """
        return self.std / math.sqrt(len(self.accuracies))

    @property
    def wilson(self) -> tuple[float, float]:
        """95 % Wilson interval of the share of correct decisions, over the pairs of all folds."""
        return wilson_interval(self.n_correct, len(self.correct))


def cross_validate(
    distances: Float64[np.ndarray, " pairs"],
    genuine: Bool[np.ndarray, " pairs"],
    fold: Int64[np.ndarray, " pairs"],
    grid: Float64[np.ndarray, " thresholds"] = GRID,
) -> CrossValidation:
    """LFW's View 2: each fold is measured at the threshold of `grid` that is best on all other folds (the lowest of
    equally good ones).

    Source: insightface's and facenet's evaluation (grid 0…4 in steps of 0.01, strict <).

    Raises: UserError with fewer than two folds.
    """
    folds, place = np.unique(fold, return_inverse=True)
    if len(folds) < 2:
        raise UserError(
            f"folds must be at least 2, since the threshold is chosen on the other folds; the pairs have {len(folds)}."
        )
    n_correct = np.stack([_n_correct(distances[fold == k], genuine[fold == k], grid) for k in folds])
    thresholds = grid[(n_correct.sum(axis=0) - n_correct).argmax(axis=1)]
    correct = (distances < thresholds[place]) == genuine
    accuracies = np.bincount(place, weights=correct) / np.bincount(place)
    return CrossValidation(accuracies=accuracies, thresholds=thresholds, correct=correct)


def _n_correct(
    distances: Float64[np.ndarray, " pairs"], genuine: Bool[np.ndarray, " pairs"], grid: Float64[np.ndarray, " t"]
) -> Int64[np.ndarray, " t"]:
    """How many pairs each threshold decides correctly."""
    accepted = np.searchsorted(np.sort(distances[genuine]), grid, side="left")
    wrongly = np.searchsorted(np.sort(distances[~genuine]), grid, side="left")
    return (accepted + (~genuine).sum() - wrongly).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """How two ways to decide the same pairs differ: the pairs that only the first decides correctly (`n_lost`), and
    only the second (`n_gained`).
    """

    n_lost: int
    n_gained: int

    @classmethod
    def of(cls, first: Bool[np.ndarray, " pairs"], second: Bool[np.ndarray, " pairs"]) -> "McNemar":
        """Compare which pairs were decided correctly."""
        return cls(n_lost=int((first & ~second).sum()), n_gained=int((~first & second).sum()))

    @property
    def p(self) -> float:
        """The probability, 0…1, of a difference at least as large, if both were equally often correct: the exact
        two-sided test (McNemar 1947); 1 where no pair differs.
        """
        n = self.n_lost + self.n_gained
        return float(binomtest(self.n_lost, n, 0.5).pvalue) if n else 1.0


def wilson_interval(successes: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927); `z` is the normal quantile, 1.96 for 95 %."""
    share = successes / trials
    center = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(0.0, center - half), min(1.0, center + half)


def threshold_at_far(impostors: Float64[np.ndarray, " pairs"], far: float) -> float:
    """The highest threshold that accepts at most the share `far` of impostor pairs, given their distances.

    nan where there are fewer than 1/far impostor pairs, which cannot show such a rate.
    """
    allowed = allowed_impostors(far, len(impostors))
    if allowed < 1:
        return math.nan
    return float(np.sort(impostors)[allowed]) if allowed < len(impostors) else math.inf


def tar_at_far(distances: Float64[np.ndarray, " pairs"], genuine: Bool[np.ndarray, " pairs"], far: float) -> float:
    """Share of genuine pairs accepted at the highest threshold that accepts at most the share `far` of impostor pairs.

    nan where there are fewer than 1/far impostor pairs, which cannot show such a rate.
    """
    threshold = threshold_at_far(distances[~genuine], far)
    return math.nan if math.isnan(threshold) else float((distances[genuine] < threshold).mean())


def allowed_impostors(far: float, n_impostors: int) -> int:
    """The largest number of impostor pairs that may be accepted at a FAR; 0 where they cannot show it."""
    return math.floor(far * n_impostors + 1e-9)


def roc_curve(
    distances: Float64[np.ndarray, " pairs"], genuine: Bool[np.ndarray, " pairs"]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Shares of impostor (FAR) and of genuine (TAR) pairs accepted at thresholds just above each distance, from (0, 0)
    to (1, 1).
    """
    values = np.unique(distances)
    far = np.searchsorted(np.sort(distances[~genuine]), values, side="right") / (~genuine).sum()
    tar = np.searchsorted(np.sort(distances[genuine]), values, side="right") / genuine.sum()
    return np.concatenate([[0.0], far]), np.concatenate([[0.0], tar])


def equal_error_rate(distances: Float64[np.ndarray, " pairs"], genuine: Bool[np.ndarray, " pairs"]) -> float:
    """The rate, 0…1, at which the share of accepted impostor pairs equals the share of rejected genuine pairs; linear
    between the points of the ROC curve.
    """
    far, tar = roc_curve(distances, genuine)
    surplus = far - (1 - tar)
    after = int(np.argmax(surplus >= 0))
    before = after - 1
    weight = -surplus[before] / (surplus[after] - surplus[before])
    return float(far[before] + weight * (far[after] - far[before]))


def area_under_curve(distances: Float64[np.ndarray, " pairs"], genuine: Bool[np.ndarray, " pairs"]) -> float:
    """Probability, 0…1, that a genuine pair has a smaller distance than an impostor pair; equal distances count half
    (Mann–Whitney).
    """
    impostors = np.sort(distances[~genuine])
    nearer = np.searchsorted(impostors, distances[genuine], side="left")
    not_farther = np.searchsorted(impostors, distances[genuine], side="right")
    return float(1 - (nearer + not_farther).mean() / (2 * len(impostors)))
