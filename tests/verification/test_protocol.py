import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fsae_mlflow.verification.protocol import (
    GRID,
    McNemar,
    area_under_curve,
    cross_validate,
    equal_error_rate,
    roc_curve,
    squared_distances,
    tar_at_far,
    wilson_interval,
)

Scores = tuple[np.ndarray, np.ndarray]


def scores(n: int = 600, *, seed: int = 0, decimals: int = 8) -> Scores:
    generator = np.random.default_rng(seed)
    genuine = np.arange(n) % 2 == 0
    distances = np.where(genuine, generator.normal(1.0, 0.35, n), generator.normal(1.9, 0.3, n)).clip(0, 4)
    return distances.round(decimals), genuine


def test_distances_are_of_normalized_templates() -> None:
    a = np.array([[3, 0], [0, 5], [1, 1], [0, 0]], dtype=np.float32)
    b = np.array([[7, 0], [2, 0], [-2, -2], [1, 0]], dtype=np.float32)
    np.testing.assert_allclose(squared_distances(a, b), [0, 2, 4, 1], atol=1e-12)


def insightface_accuracy(
    distances: np.ndarray, genuine: np.ndarray, fold: np.ndarray
) -> tuple[list[float], list[float]]:
    """insightface's verification.py step by step: np.less on its grid, argmax over the other folds."""
    thresholds = np.arange(0, 4, 0.01)
    accuracies, chosen = [], []
    for k in np.unique(fold):
        train, test = fold != k, fold == k
        best = np.argmax([np.mean(np.less(distances[train], t) == genuine[train]) for t in thresholds])
        chosen.append(thresholds[best])
        accuracies.append(np.mean(np.less(distances[test], thresholds[best]) == genuine[test]))
    return accuracies, chosen


@pytest.mark.parametrize("decimals", [8, 2])
def test_cross_validation_is_insightfaces(decimals: int) -> None:
    distances, genuine = scores(decimals=decimals)
    fold = np.repeat(np.arange(10), 60)
    found = cross_validate(distances, genuine, fold)
    accuracies, thresholds = insightface_accuracy(distances, genuine, fold)
    np.testing.assert_allclose(found.accuracies, accuracies, rtol=1e-12)
    np.testing.assert_array_equal(found.thresholds, thresholds)
    assert found.mean == pytest.approx(np.mean(accuracies), rel=1e-12)
    assert found.std == pytest.approx(np.std(accuracies), rel=1e-12)
    assert found.standard_error == pytest.approx(np.std(accuracies) / math.sqrt(10), rel=1e-12)
    assert found.n_correct == round(np.mean(accuracies) * 600)


def test_a_distance_on_the_threshold_is_refused() -> None:
    step = float(GRID[1])
    distances = np.array([step, 3.0, step, 3.0])
    genuine = np.array([True, False, True, False])
    found = cross_validate(distances, genuine, np.array([0, 0, 1, 1]))
    assert found.thresholds.tolist() == [GRID[2], GRID[2]]
    assert found.mean == 1


def test_the_test_fold_does_not_choose_its_threshold() -> None:
    distances = np.array([0.5, 1.0, 2.5, 3.0])
    genuine = np.array([True, False, True, False])
    found = cross_validate(distances, genuine, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(found.accuracies, [0.5, 0.5])
    assert found.thresholds[0] > 2.5 and found.thresholds[1] < 1.0


def test_constant_templates_give_one_half() -> None:
    genuine = np.arange(40) % 2 == 0
    assert cross_validate(np.zeros(40), genuine, np.arange(40) // 4).mean == 0.5


def test_one_fold_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        cross_validate(np.zeros(4), np.array([True, False, True, False]), np.zeros(4, np.int64))


def test_decisions_are_those_of_each_folds_own_threshold() -> None:
    distances = np.array([0.5, 1.0, 2.5, 3.0])
    genuine = np.array([True, False, True, False])
    found = cross_validate(distances, genuine, np.array([3, 3, 7, 7]))
    assert found.correct.tolist() == [True, False, False, True]
    distances, genuine = scores()
    fold = np.arange(600) % 10
    found = cross_validate(distances, genuine, fold)
    for k in range(10):
        accepted = distances[fold == k] < found.thresholds[k]
        np.testing.assert_array_equal(found.correct[fold == k], accepted == genuine[fold == k])
        assert found.accuracies[k] == found.correct[fold == k].mean()


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_scipys_and_the_sum_of_the_binomial_tails(n_lost: int, n_gained: int) -> None:
    first = np.array([True] * n_lost + [False] * n_gained + [True, True, False])
    second = np.array([False] * n_lost + [True] * n_gained + [True, True, False])
    found = McNemar.of(first, second)
    assert (found.n_lost, found.n_gained) == (n_lost, n_gained)
    n, fewer = n_lost + n_gained, min(n_lost, n_gained)
    # As statsmodels computes it: twice the smaller tail, at most 1.
    assert found.p == pytest.approx(min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n), rel=1e-9)
    if n:
        assert found.p == pytest.approx(stats.binomtest(n_gained, n, 0.5).pvalue, rel=1e-9)
    assert McNemar.of(second, first).p == found.p


def test_mcnemar_without_a_difference_is_1() -> None:
    same = np.array([True, False])
    assert McNemar.of(same, same).p == 1


def test_wilson_solves_its_equation() -> None:
    z = 1.959963984540054
    for successes, trials in [(0, 10), (5967, 6000), (3, 7), (10, 10)]:
        share = successes / trials
        for bound in wilson_interval(successes, trials):
            assert (share - bound) ** 2 == pytest.approx(z**2 * bound * (1 - bound) / trials, abs=1e-12)
    for successes, trials in ((0, 10), (3, 10), (5968, 6000), (10, 10)):
        of_scipy = stats.binomtest(successes, trials).proportion_ci(method="wilson")
        assert wilson_interval(successes, trials) == pytest.approx((of_scipy.low, of_scipy.high), abs=1e-12)
    assert wilson_interval(0, 10)[0] == 0


@pytest.mark.parametrize("decimals", [8, 1])
@pytest.mark.parametrize("far", [0.01, 0.1])
def test_tar_at_far_by_brute_force(decimals: int, far: float) -> None:
    distances, genuine = scores(decimals=decimals)
    possible = [(distances[genuine] < t).mean() for t in [*distances, 5.0] if (distances[~genuine] < t).mean() <= far]
    assert tar_at_far(distances, genuine, far) == pytest.approx(max(possible), rel=1e-12)


def test_a_rate_that_too_few_impostors_can_show_is_nan() -> None:
    distances, genuine = scores(100)
    assert math.isnan(tar_at_far(distances, genuine, 1e-3))
    distances, genuine = scores(2000)
    assert not math.isnan(tar_at_far(distances, genuine, 1e-3))


@pytest.mark.parametrize("decimals", [8, 1])
def test_roc_auc_and_eer_are_scikit_learns(decimals: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    optimize = pytest.importorskip("scipy.optimize")
    distances, genuine = scores(decimals=decimals)
    reference = metrics.roc_curve(genuine, -distances, drop_intermediate=False)
    far, tar = roc_curve(distances, genuine)
    np.testing.assert_allclose(far, reference[0])
    np.testing.assert_allclose(tar, reference[1])
    assert area_under_curve(distances, genuine) == pytest.approx(metrics.roc_auc_score(genuine, -distances), rel=1e-12)
    expected = optimize.brentq(lambda x: 1 - x - np.interp(x, reference[0], reference[1]), 0, 1)
    assert equal_error_rate(distances, genuine) == pytest.approx(expected, abs=2 / 300 if decimals == 1 else 1 / 300)


@given(st.lists(st.floats(0, 4), min_size=2, max_size=30), st.data())
def test_rates_lie_between_0_and_1(distances: list[float], data: st.DataObject) -> None:
    genuine = np.array(
        [True, False, *data.draw(st.lists(st.booleans(), min_size=len(distances) - 2, max_size=len(distances) - 2))]
    )
    values = np.array(distances)
    assert 0 <= equal_error_rate(values, genuine) <= 1
    assert 0 <= area_under_curve(values, genuine) <= 1


def test_perfect_separation() -> None:
    distances, genuine = np.array([0.1, 0.2, 3.0, 3.5]), np.array([True, True, False, False])
    assert equal_error_rate(distances, genuine) == 0
    assert area_under_curve(distances, genuine) == 1


@pytest.mark.parametrize(
    ("genuine", "impostors", "expected"),
    [
        ([0.1, 0.3], [0.2, 0.4], 1 / 2),  # a point of the curve
        ([0.1, 0.2, 0.5], [0.3, 0.4], 1 / 3),  # between points, along the FAR
        ([0.1, 0.2, 0.2], [0.2, 0.3], 2 / 7),  # between points, along both
    ],
)
def test_the_equal_error_rate_by_hand(genuine: list[float], impostors: list[float], expected: float) -> None:
    is_genuine = np.arange(len(genuine) + len(impostors)) < len(genuine)
    assert equal_error_rate(np.array(genuine + impostors), is_genuine) == pytest.approx(expected, rel=1e-12)


def test_as_many_impostors_as_the_rate_needs_can_show_it() -> None:
    for n_impostors in (99, 100):
        genuine = np.arange(n_impostors + 4) < 4
        distances = np.where(genuine, 0.5, np.linspace(0.4, 2, len(genuine)))
        assert math.isnan(tar_at_far(distances, genuine, 0.01)) == (n_impostors == 99)
    distances, genuine = np.array([3.0, 3.5, 1.0, 2.0]), np.array([True, True, False, False])
    assert tar_at_far(distances, genuine, 0.5) == 0
    assert tar_at_far(distances, genuine, 1.0) == 1
