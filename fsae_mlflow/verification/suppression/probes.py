"""Fresh probes: how well an attribute is read from templates by someone who trains for it.

Templates are whitened first, on the people that a probe is trained on: attributes also stand in directions of little
variance, which a probe on templates as they are misses. The linear penalty was chosen on CelebA's original templates,
by a split of the training people; the MLP's is a fixed value that was not tuned on the people of the test.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from fsae_mlflow.verification.suppression.erasers import NEGLIGIBLE

LINEAR_PENALTY, MLP_PENALTY = 0.2, 0.01
"""Weights of ‖w‖²/2 beside the mean loss of a face."""
HIDDEN, EPOCHS, BATCH_SIZE = 64, 60, 200
"""Width of the MLP's hidden layer, passes over its training rows, and rows of a step."""
N_RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Auroc:
    """Area under the ROC curve, 0…1 (0.5: chance), with a 95 % interval: the 2.5th and 97.5th percentile over
    bootstrap samples of people.
    """

    value: float
    low: float
    high: float


class Whitened:
    """Templates of people to train on and of people to test on (`test`), whitened on the former, for any number of
    probes. Attributes are 0 or 1, nan where unknown; scores are those of the labeled rows of the test.
    """

    def __init__(self, x: Float64[np.ndarray, "n d"], *, test: Bool[np.ndarray, " n"]) -> None:
        centered = x - x[~test].mean(axis=0)
        variances, directions = np.linalg.eigh(centered[~test].T @ centered[~test] / (~test).sum())
        kept = variances > NEGLIGIBLE * variances.max()
        self.x = centered @ (directions[:, kept] / np.sqrt(variances[kept]))
        self.test = test

    def linear(self, attribute: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " tested"]:
        """Scores of a logistic regression."""
        probe = LogisticRegression(C=1 / (LINEAR_PENALTY * self._n(attribute)), max_iter=1000)
        return self._fitted(probe, attribute).decision_function(self._tested(attribute))

    def mlp(self, attribute: Float64[np.ndarray, " n"], *, seed: int) -> Float64[np.ndarray, " tested"]:
        """Scores of a network with one hidden layer, after a fixed number of epochs: a held-out accuracy would stop the
        training on a rare attribute at once.
        """
        # scikit-learn divides alpha by the rows of a step.
        n = min(BATCH_SIZE, self._n(attribute))
        steps: dict[str, Any] = {"alpha": MLP_PENALTY * n, "batch_size": n, "max_iter": EPOCHS}
        probe = MLPClassifier((HIDDEN,), early_stopping=False, random_state=seed, **steps)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return self._fitted(probe, attribute).predict_proba(self._tested(attribute))[:, 1]

    def mean_auroc(self, attributes: Mapping[str, Float64[np.ndarray, " n"]]) -> float:
        """The mean AUROC of linear probes; nan without any."""
        found = [roc_auc_score(has[self.test & ~np.isnan(has)], self.linear(has)) for has in attributes.values()]
        return float(np.mean(found)) if found else float("nan")

    def _n(self, attribute: Float64[np.ndarray, " n"]) -> int:
        return int((~self.test & ~np.isnan(attribute)).sum())

    def _fitted(self, probe: Any, attribute: Float64[np.ndarray, " n"]) -> Any:
        rows = ~self.test & ~np.isnan(attribute)
        # Small products: several threads would wait for one another longer than they compute.
        with threadpool_limits(1):
            return probe.fit(self.x[rows], attribute[rows] > 0)

    def _tested(self, attribute: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "tested rank"]:
        return self.x[self.test & ~np.isnan(attribute)]


def auroc(
    score: Float64[np.ndarray, " n"], has: Bool[np.ndarray, " n"], people: Int64[np.ndarray, " n"], *, seed: int
) -> Auroc:
    """The AUROC of scores, with its interval over people."""
    order = np.argsort(score, kind="stable")
    starts, has = np.flatnonzero(np.diff(score[order], prepend=-np.inf)), has[order]
    names, people = np.unique(people[order], return_inverse=True)
    generator, found = np.random.default_rng(seed), []
    for _ in range(N_RESAMPLES):
        drawn = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
        found.append(_auroc(drawn[people].astype(np.float64), has, starts))
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return Auroc(value=_auroc(np.ones(len(has)), has, starts), low=float(low), high=float(high))


def _auroc(
    weights: Float64[np.ndarray, " n"], has: Bool[np.ndarray, " n"], starts: Int64[np.ndarray, " values"]
) -> float:
    """The AUROC of weighted rows in the order of their scores, of which each different one begins at `starts`."""
    positive, negative = (np.add.reduceat(np.where(side, weights, 0.0), starts) for side in (has, ~has))
    below = np.cumsum(negative) - negative / 2
    total = positive.sum() * negative.sum()
    return float((positive * below).sum() / total) if total else float("nan")
