import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsae_mlflow.features.clusters import Clusters, choose_features, clusters
from fsae_mlflow.features.survey import Survey


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


def survey_of(counts: list[int], maxima: list[float], sums: list[float], *, n: int = 100) -> Survey:
    """A survey of `n` templates: each feature fires `counts` times, once at its maximum and else at one lower value."""
    features = np.zeros((n, len(counts)), np.float32)
    for feature, (count, maximum, total) in enumerate(zip(counts, maxima, sums, strict=True)):
        if count:
            features[:count, feature] = [maximum, *[(total - maximum) / max(count - 1, 1)] * (count - 1)]
    found = Survey(len(counts))
    found.add(features)
    return found


def clusters_of(high: list[int], low: list[int], n: int) -> Clusters:
    index = np.arange(n)
    return Clusters(low=np.isin(index, low), high=np.isin(index, high), split=0.1, separated=True)


def test_both_clusters_are_represented_by_their_best() -> None:
    found = survey_of(counts=[50, 50, 40, 3, 9, 9, 0], maxima=[2, 6, 2, 9, 4, 5, 0], sums=[50, 100, 40, 3, 9, 9, 0])
    both = clusters_of(high=[0, 1, 2], low=[3, 4, 5], n=7)
    assert choose_features(found, both, n=4, enough=6) == [1, 0, 5, 4]
    assert choose_features(found, both, n=1, enough=6) == [1]
    assert choose_features(found, both, n=100, enough=6) == [1, 0, 2, 5, 4, 3]


def test_a_short_cluster_leaves_its_places_to_the_other() -> None:
    found = survey_of(counts=[50, 50, 40, 3], maxima=[3, 2, 1, 1], sums=[50, 50, 40, 3])
    assert choose_features(found, clusters_of(high=[0, 1, 2], low=[3], n=4), n=4, enough=6) == [0, 1, 2, 3]
    assert choose_features(found, clusters_of(high=[0], low=[1, 2, 3], n=4), n=4, enough=6) == [0, 1, 2, 3]


def test_no_firing_feature_is_refused() -> None:
    with pytest.raises(ValueError, match="no feature that fires"):
        choose_features(survey_of([0, 0], [0, 0], [0, 0]), clusters_of([0], [1], 2), n=2, enough=1)
