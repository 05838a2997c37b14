import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from fsae_mlflow.features.statistics.discrimination import auroc, average_precision
from tests.features.statistics.samples import sample


def labels_of(n: int, seed: int) -> np.ndarray:
    """Attributes; the second is unknown on some faces, the third is one that all have, the fourth known nowhere."""
    numbers = np.random.default_rng(seed)
    labels = (numbers.random((n, 4)) < [0.5, 0.1, 2, 0.5]).astype(float)
    labels[numbers.random(n) < 0.3, 1] = np.nan
    labels[:, 3] = np.nan
    labels[-2:, 1] = [0, 1]
    return labels


@pytest.mark.parametrize("seed", range(8))
def test_auroc_is_scikit_learns(seed: int) -> None:
    features, entries, people = sample(30, 6, seed)
    labels = labels_of(len(people), seed)
    found = auroc(entries, labels)
    for c in range(2):
        known = ~np.isnan(labels[:, c])
        for j in range(6):
            assert found[j, c] == pytest.approx(roc_auc_score(labels[known, c], features[known, j]))
    assert np.isnan(found[:, 2:]).all()


@pytest.mark.parametrize("seed", range(8))
def test_average_precision_is_scikit_learns(seed: int) -> None:
    features, entries, people = sample(30, 6, seed)
    labels = labels_of(len(people), seed)
    column = np.array([0, 1, -1, 1, 0, 3])
    found = average_precision(entries, labels, column)
    for j in (0, 1, 3, 4):
        known = ~np.isnan(labels[:, column[j]])
        score = average_precision_score(labels[known, column[j]], features[known, j])
        assert found[j] == pytest.approx(score)
    assert np.isnan(found[[2, 5]]).all()
