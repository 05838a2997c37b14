import numpy as np
import pytest
from scipy.stats import rankdata

from fsae_mlflow.features.statistics.order import Groups, alike, by_activation, rank_scores
from fsae_mlflow.sae.entries import Entries
from tests.features.statistics.samples import sample


@pytest.mark.parametrize("seed", range(8))
def test_scores_are_mid_ranks_above_the_mid_rank_of_zeros(seed: int) -> None:
    features, entries, _ = sample(20, 5, seed)
    scores = np.zeros_like(features, np.float64)
    scores[entries.rows, entries.feature] = rank_scores(entries)
    ranks = rankdata(features, axis=0)
    for j in range(2, 5):
        assert scores[:, j] == pytest.approx(ranks[:, j] - ranks[features[:, j] == 0, j].mean())
    assert np.ptp(scores[:, 1]) == 0


def test_entries_are_ordered_by_falling_activation_then_row() -> None:
    entries = Entries.of(np.array([[0.0, 2.0], [1.0, 3.0], [5.0, 2.0], [0.0, 1e-30]]))
    assert entries.rows[by_activation(entries)].tolist() == [2, 1, 1, 0, 2, 3]


def test_groups_are_feature_and_person() -> None:
    features, entries, people = sample()
    groups = Groups.of(entries, people)
    sums = groups.sums(entries.values.astype(np.float64))
    assert groups.n_people.tolist() == [len(set(people[column > 0])) for column in features.T]
    for g, (feature, person) in enumerate(zip(groups.feature, groups.person, strict=True)):
        assert sums[g] == pytest.approx(features[people == person, feature].sum(), rel=1e-6)
        assert set(people[entries.rows[groups.order[groups.starts[g] : groups.starts[g + 1]]]]) == {person}
    assert np.bincount(groups.feature, sums) == pytest.approx(features.sum(axis=0), rel=1e-6)


def test_nothing_fires() -> None:
    entries = Entries.of(np.zeros((4, 3)))
    assert not len(rank_scores(entries))
    assert Groups.of(entries, np.zeros(4, np.int64)).n_people.tolist() == [0, 0, 0]


def test_columns_known_on_the_same_rows_come_together() -> None:
    columns = np.array([[1.0, np.nan, 2.0, np.nan], [np.nan, 3.0, np.nan, np.nan]])
    assert [(known.tolist(), same.tolist()) for known, same in alike(columns)] == [
        ([True, False], [0, 2]),
        ([False, True], [1]),
    ]
