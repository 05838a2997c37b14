import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fsae_mlflow.verification.suppression import probes
from fsae_mlflow.verification.suppression.probes import Whitened, auroc

N_PEOPLE, N_FACES, D = 120, 6, 8
PEOPLE = np.repeat(np.arange(N_PEOPLE), N_FACES)
TEST = PEOPLE % 2 == 1


def templates(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(PEOPLE), D))


def test_an_attribute_in_a_direction_of_little_variance_is_read() -> None:
    x = templates() * np.array([1, 1, 1, 1, 1, 1, 1, 1e-4])
    has = (x[:, 7] > 0).astype(np.float64)
    has[::10] = np.nan
    found = Whitened(x, test=TEST)
    known = TEST & ~np.isnan(has)
    for score in (found.linear(has), found.mlp(has, seed=0)):
        assert len(score) == known.sum() and roc_auc_score(has[known], score) > 0.9


def test_only_the_network_reads_what_is_not_linear() -> None:
    x = np.random.default_rng(0).normal(size=(4 * len(PEOPLE), 3))
    test = np.tile(TEST, 4)
    has, probed = (np.abs(x[:, 0]) > 0.7).astype(np.float64), Whitened(x, test=test)
    linear, mlp = (roc_auc_score(has[test], score) for score in (probed.linear(has), probed.mlp(has, seed=0)))
    assert abs(linear - 0.5) < 0.1 and mlp > 0.75


@pytest.mark.parametrize("n", [6_000, 24_000])
def test_the_network_reads_a_rare_attribute_that_is_not_linear(n: int) -> None:
    numbers = np.random.default_rng(0)
    x, test = numbers.normal(size=(n, 20)), np.arange(n) % 2 == 1
    square = (x[:, :3] ** 2).sum(axis=1)
    has = (square > np.quantile(square, 0.94)).astype(np.float64)
    assert roc_auc_score(has[test], Whitened(x, test=test).mlp(has, seed=0)) > 0.75


def test_probes_learn_nothing_from_the_people_they_are_tested_on() -> None:
    x, has = templates(), (templates()[:, 0] > 0).astype(np.float64)
    other = x.copy()
    other[TEST] += 100
    swapped = np.where(TEST, 1 - has, has)
    first, second = Whitened(x, test=TEST), Whitened(other, test=TEST)
    np.testing.assert_allclose(first.linear(has), first.linear(swapped))
    np.testing.assert_allclose(first.x[~TEST], second.x[~TEST])


def test_auroc_and_its_interval_over_people() -> None:
    numbers = np.random.default_rng(0)
    has = numbers.random(len(PEOPLE)) < 0.4
    score = (has + numbers.normal(size=len(PEOPLE))).round(1)
    found = auroc(score, has, PEOPLE, seed=0)
    assert found.value == pytest.approx(roc_auc_score(has, score))
    assert found.low < found.value < found.high and 0.04 < found.high - found.low < 0.12
    # Where the faces of a person are the same face, there are as many observations as people.
    same = np.repeat(np.arange(0, len(PEOPLE), N_FACES), N_FACES)
    wide = auroc(score[same], has[same], PEOPLE, seed=0)
    rows = np.arange(0, len(PEOPLE), N_FACES)
    alone = auroc(score[rows], has[rows], PEOPLE[rows], seed=0)
    assert (wide.low, wide.high) == pytest.approx((alone.low, alone.high))
    assert wide.high - wide.low > 1.5 * (found.high - found.low)


def test_resamples_are_drawn_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "N_RESAMPLES", 1)
    numbers = np.random.default_rng(3)
    has, score = numbers.random(len(PEOPLE)) < 0.5, numbers.normal(size=len(PEOPLE)).round(1)
    people = np.random.default_rng(0).integers(N_PEOPLE, size=N_PEOPLE)
    rows = np.concatenate([np.flatnonzero(person == PEOPLE) for person in people])
    found = auroc(score, has, PEOPLE, seed=0)
    assert found.low == found.high == pytest.approx(roc_auc_score(has[rows], score[rows]))


def test_the_mean_over_attributes() -> None:
    x = templates()
    attributes = {name: (x[:, column] > 0).astype(np.float64) for column, name in enumerate("ab")}
    attributes["chance"] = (np.random.default_rng(9).random(len(x)) < 0.5).astype(np.float64)
    found = Whitened(x, test=TEST)
    each = [roc_auc_score(has[TEST], found.linear(has)) for has in attributes.values()]
    assert found.mean_auroc(attributes) == pytest.approx(np.mean(each))
    assert np.isnan(found.mean_auroc({}))
