import numpy as np
import pytest
import torch

from fsae_mlflow.features.density import Clusters, Survey
from fsae_mlflow.features.top_faces import choose_features, top_rows
from fsae_mlflow.sae.variants.gated import GatedSAE


@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_top_rows_equal_a_full_sort(batch_size: int) -> None:
    torch.manual_seed(0)
    sae = GatedSAE(6, 24).eval().requires_grad_(False)
    templates = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    templates[7] = templates[3]
    features = [5, 0, 17]
    found = top_rows(sae, templates, features, k=4, batch_size=batch_size)
    dense = sae.encode(torch.from_numpy(templates)).numpy()[:, features]
    order = np.argsort(-dense, axis=0, kind="stable")[:4].T
    np.testing.assert_array_equal(found.rows, order)
    np.testing.assert_allclose(found.activations, np.take_along_axis(dense.T, order, axis=1), rtol=1e-6)


def test_rows_that_do_not_fire_are_left_out() -> None:
    sae = GatedSAE(1, 2).requires_grad_(False)
    sae.W_enc.copy_(torch.tensor([[1.0], [-1.0]]))
    templates = np.array([[1], [2], [-3]], dtype=np.float32)
    found = top_rows(sae, templates, [0, 1], k=3)
    assert found.rows.tolist() == [[1, 0, -1], [2, -1, -1]]
    assert found.activations.tolist() == [[2, 1, 0], [3, 0, 0]]
    assert found.firing(1, 3).tolist() == [2]


def test_an_unknown_feature_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 1; they name 2"):
        top_rows(GatedSAE(1, 2), np.zeros((1, 1), np.float32), [0, 2], k=1)


def survey_of(counts: list[int], maxima: list[float], sums: list[float]) -> Survey:
    return Survey(
        n=100, counts=np.array(counts), maxima=np.array(maxima, dtype=np.float32), sums=np.array(sums, dtype=np.float64)
    )


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
