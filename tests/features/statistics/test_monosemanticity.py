import numpy as np
import pytest

from fsae_mlflow.features.statistics.monosemanticity import monosemanticity, monosemanticity_shuffled
from fsae_mlflow.sae.entries import Entries
from tests.features.statistics.samples import sample


def unit(n: int, d: int, seed: int) -> np.ndarray:
    templates = np.random.default_rng(seed).normal(size=(n, d)) + 0.3
    return templates / np.linalg.norm(templates, axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(8))
def test_the_score_is_the_weighted_mean_over_pairs(seed: int) -> None:
    features, entries, people = sample(15, 5, seed)
    judge = unit(len(people), 8, seed)
    found = monosemanticity(entries, judge)
    pairs = ~np.eye(len(people), dtype=bool)
    for j in range(1, 5):
        w = np.outer(features[:, j], features[:, j]) * pairs
        assert found[j] == pytest.approx((w * (judge @ judge.T)).sum() / w.sum(), abs=1e-6)
    assert np.isnan(found[0])


def test_a_single_face_has_no_score() -> None:
    features = np.array([[1.0, 1.0], [0.0, 1.0]])
    found = monosemanticity(Entries.of(features), np.array([[1.0, 0.0], [0.6, 0.8]]))
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(0.6)


def test_shuffled_is_near_the_mean_cosine_of_all_pairs() -> None:
    _, entries, people = sample(200, 5, 0)
    judge = unit(len(people), 8, 0)
    cosines = (judge @ judge.T)[np.triu_indices(len(people), 1)]
    found = monosemanticity_shuffled(entries, judge, seed=0)
    assert found[1:] == pytest.approx(np.full(4, cosines.mean()), abs=0.03)
    assert np.array_equal(found, monosemanticity_shuffled(entries, judge, seed=0), equal_nan=True)
    assert not np.array_equal(found[2:], monosemanticity_shuffled(entries, judge, seed=1)[2:])
