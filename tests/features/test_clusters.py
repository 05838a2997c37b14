import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsae_mlflow.features.clusters import Clusters, choose_features, clusters


def test_the_papers_clusters_are_found() -> None:
    generator = np.random.default_rng(0)
    n = 3_200_000
    density = np.zeros(65_536)
    density[:451] = generator.uniform(0.40, 0.48, size=451)
    density[451:25_979] = generator.geometric(0.2, size=25_979 - 451).clip(1, 20) / n
    found = clusters(density)
    assert found.separated
    assert found.high.sum() == 451 and found.high[:451].all()
    assert found.low.sum() == 25_979 - 451
    assert found.n_dead == 65_536 - 25_979
    assert 20 / n < found.split < 0.40


def test_overlapping_clusters_are_split_at_their_valley() -> None:
    generator = np.random.default_rng(1)
    density = 10 ** np.concatenate([generator.normal(-4, 0.4, 3000), generator.normal(-1.5, 0.3, 500).clip(max=-0.01)])
    found = clusters(density)
    assert found.separated
    assert -3.2 < np.log10(found.split) < -2.0


@pytest.mark.parametrize("n", [400, 14_729])
def test_small_counts_alone_make_no_clusters(n: int) -> None:
    counts = np.random.default_rng(0).geometric(0.3, size=4096)
    found = clusters(counts / n)
    assert not found.separated
    assert found.low.any() and found.high.any()


def test_one_normal_hump_has_no_valley() -> None:
    density = 10 ** np.random.default_rng(0).normal(-2, 0.5, 4096).clip(max=-0.01)
    assert not clusters(density).separated


def test_otsu_is_the_brute_force_best_cut() -> None:
    density = 10 ** np.random.default_rng(3).normal(-2, 0.3, 60).clip(max=-0.01)
    found = clusters(density)
    logs = np.sort(np.log10(density))
    within = [logs[:cut].var() * cut + logs[cut:].var() * (60 - cut) for cut in range(1, 60)]
    assert not found.separated
    assert found.low.sum() == 1 + int(np.argmin(within))


@given(
    st.lists(st.integers(0, 400), min_size=2, max_size=80).filter(lambda counts: sum(count > 0 for count in counts) > 1)
)
def test_every_feature_is_low_high_or_dead(counts: list[int]) -> None:
    density = np.array(counts) / 400
    found = clusters(density)
    assert not (found.low & found.high).any()
    assert found.low.sum() + found.high.sum() + (density == 0).sum() == len(density)
    assert density[found.low].max(initial=0) <= found.split
    assert (density[found.high] > found.split).all()


def test_nothing_alive_is_refused() -> None:
    with pytest.raises(ValueError, match="0 of 5 features"):
        clusters(np.zeros(5))


def clusters_of(high: list[int], low: list[int], n: int) -> Clusters:
    index = np.arange(n)
    return Clusters(low=np.isin(index, low), high=np.isin(index, high), split=0.1, separated=True)


COUNTS = np.array([50, 50, 40, 3, 9, 9, 0])
CONTRAST = np.array([2.0, 3.0, 2.0, 9.0, 4.0, 5.0, 0.0])


def test_both_clusters_are_represented_by_their_best() -> None:
    both = clusters_of(high=[0, 1, 2], low=[3, 4, 5], n=7)
    assert choose_features(both, COUNTS, CONTRAST, n=4, enough=6) == [1, 0, 5, 4]
    assert choose_features(both, COUNTS, CONTRAST, n=1, enough=6) == [1]
    assert choose_features(both, COUNTS, CONTRAST, n=100, enough=6) == [1, 0, 2, 5, 4, 3]


def test_a_short_cluster_leaves_its_places_to_the_other() -> None:
    counts, contrast = np.array([50, 50, 40, 3]), np.array([3.0, 2.0, 1.0, 1.0])
    assert choose_features(clusters_of([0, 1, 2], [3], 4), counts, contrast, n=4, enough=6) == [0, 1, 2, 3]
    assert choose_features(clusters_of([0], [1, 2, 3], 4), counts, contrast, n=4, enough=6) == [0, 1, 2, 3]


def test_no_firing_feature_is_refused() -> None:
    with pytest.raises(ValueError, match="no feature that fires"):
        choose_features(clusters_of([0], [1], 2), np.zeros(2, np.int64), np.zeros(2), n=2, enough=1)
