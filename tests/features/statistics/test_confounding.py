import numpy as np
import pytest
from scipy.stats import pearsonr, rankdata, spearmanr

from fsae_mlflow.features.statistics.confounding import partial, rank_correlations


def test_correlations_are_spearmans_and_phi() -> None:
    numbers = np.random.default_rng(0)
    labels = numbers.normal(size=(200, 5)) @ numbers.normal(size=(5, 5))
    labels[:, 1] = labels[:, 1] > 0.5
    labels[:, 2] = labels[:, 2] > 0
    labels[:, 3] = 7.0
    found = rank_correlations(labels)
    for i, j in ((0, 1), (0, 4), (1, 2), (2, 4)):
        assert found[i, j] == pytest.approx(spearmanr(labels[:, i], labels[:, j]).statistic)
    assert np.isnan(found[3]).all() and np.isnan(found[:, 3]).all()
    assert found[[0, 1, 2, 4], [0, 1, 2, 4]] == pytest.approx(1)


def test_unknown_faces_are_left_out() -> None:
    numbers = np.random.default_rng(0)
    labels = (numbers.normal(size=(200, 3)) @ numbers.normal(size=(3, 3)) > 0).astype(float)
    labels[numbers.random(200) < 0.4, 0] = np.nan
    labels[:, 2] = np.nan
    known = ~np.isnan(labels[:, 0])
    found = rank_correlations(labels)
    assert found[0, 1] == pytest.approx(pearsonr(labels[known, 0], labels[known, 1]).statistic)
    assert np.isnan(found[2]).all()


def test_partial_is_the_correlation_of_residuals() -> None:
    numbers = np.random.default_rng(0)
    a, z, c = rankdata(numbers.normal(size=(3, 3)) @ numbers.normal(size=(3, 400)), axis=1)
    left = [x - np.polyval(np.polyfit(c, x, 1), c) for x in (a, z)]
    correlations = np.corrcoef([a, z, c])
    found = partial(correlations[:1, 1], correlations[:1, 2], correlations[1:2, 2])
    assert found[0] == pytest.approx(pearsonr(*left).statistic)
    assert np.isnan(partial(np.array([0.5]), np.array([0.5]), np.array([1.0])))[0]
