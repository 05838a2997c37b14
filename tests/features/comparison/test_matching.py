"""One-to-one matches against scipy's assignment of the full matrix, and correlations against numpy's."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from fsae_mlflow.features.comparison import matching
from fsae_mlflow.features.comparison.matching import (
    Matches,
    assigned,
    correlation_blocks,
    match_activations,
    match_directions,
)
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries
from tests.sae.making import new_sae

D_IN, D_SAE = 12, 150


def sae_of(W_dec: torch.Tensor) -> SparseAutoencoder:
    sae = new_sae("relu", W_dec.shape[1], len(W_dec))
    with torch.no_grad():
        sae.W_dec.copy_(W_dec)
    return sae


def copies(noise: float) -> tuple[SparseAutoencoder, SparseAutoencoder, np.ndarray]:
    """An SAE, one with its features permuted, perturbed and rescaled, and the permutation."""
    torch.manual_seed(0)
    W_dec, order = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN), dim=1), torch.randperm(D_SAE)
    copy = torch.empty_like(W_dec)
    copy[order] = 2 * (W_dec + noise * torch.randn(D_SAE, D_IN))
    return sae_of(W_dec), sae_of(copy), order.numpy()


def by_scipy(similarities: np.ndarray) -> dict[int, int]:
    first, second = linear_sum_assignment(similarities, maximize=True)
    return {int(i): int(j) for i, j in zip(first, second, strict=True) if similarities[i, j] > 0}


def pairs(found: Matches) -> dict[int, int]:
    return dict(zip(found.first.tolist(), found.second.tolist(), strict=True))


def test_a_permuted_copy_is_found_again() -> None:
    a, b, order = copies(0.01)
    every = np.ones(D_SAE, bool)
    found = match_directions(a, b, every, every)
    assert pairs(found) == dict(enumerate(order.tolist()))
    assert found.mcc > 0.99 and found.found_again == 1


@pytest.mark.parametrize("noise", [0.1, 0.4, 10])
def test_matches_of_a_perturbed_copy_are_scipys(noise: float) -> None:
    a, b, _ = copies(noise)
    cosines = torch.nn.functional.cosine_similarity(a.W_dec[:, None], b.W_dec[None], dim=2).detach().numpy()
    every = np.ones(D_SAE, bool)
    found, expected = match_directions(a, b, every, every), by_scipy(cosines)
    assert pairs(found) == expected
    assert found.mcc == pytest.approx(sum(cosines[i, j] for i, j in expected.items()) / D_SAE, abs=1e-6)
    best = np.sort(cosines, axis=1)[:, ::-1]
    assert found.left_out == pytest.approx(best[:, matching.N_CANDIDATES - 1].max(), abs=1e-6)


@pytest.mark.parametrize(("n_a", "n_b"), [(40, 25), (25, 40)])
def test_features_that_are_left_over_or_dead_have_no_match(n_a: int, n_b: int) -> None:
    torch.manual_seed(1)
    a, b = sae_of(torch.randn(n_a + 3, 5)), sae_of(torch.randn(n_b + 2, 5))
    alive = np.arange(n_a + 3) >= 3, np.arange(n_b + 2) < n_b
    cosines = torch.nn.functional.cosine_similarity(a.W_dec[:, None], b.W_dec[None], dim=2).detach().numpy()
    found = match_directions(a, b, *alive)
    expected = {i + 3: j for i, j in by_scipy(cosines[3:, :n_b].clip(min=0)).items()}
    assert pairs(found) == expected
    assert found.n == 25 and found.left_out == 0


def test_an_opposite_is_no_match() -> None:
    a, b = sae_of(torch.tensor([[1.0, 0], [0, 1]])), sae_of(torch.tensor([[-1.0, 0], [0.6, 0.8]]))
    found = match_directions(a, b, np.ones(2, bool), np.ones(2, bool))
    assert pairs(found) == {1: 1}
    assert found.mcc == pytest.approx(0.4) and found.found_again == 0.5


def test_similarities_are_summed_and_not_taken_one_by_one() -> None:
    # Row 0 prefers column 0, which row 1 needs more.
    found = assigned(iter([(0, torch.tensor([[0.9, 0.8], [0.7, 0.1]]))]), 2, 2)
    assert pairs(found) == {0: 1, 1: 0}


def features(seed: int, n: int) -> np.ndarray:
    numbers = np.random.default_rng(seed)
    return (numbers.normal(size=(300, n)) - 0.5).clip(min=0)


def test_correlations_are_numpys_over_all_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = features(0, 6), features(1, 4)
    x[:, 2] = 0  # never fires, and is left out
    x[:, 4] = 0.7  # does not vary
    y[:, 1] = 3 * x[:, 0]
    varies = np.array([0, 1, 3, 5])
    monkeypatch.setattr(matching, "AT_ONCE", 8)  # two rows at a time
    found = torch.cat([block for _, block in correlation_blocks(Entries.of(x), Entries.of(y))]).numpy()
    assert found.shape == (5, 4)
    expected = np.corrcoef(x[:, varies].T, y.T)[:4, 4:]
    np.testing.assert_allclose(found[[0, 1, 2, 4]], expected, atol=1e-6)
    assert (found[3] == 0).all()


def test_features_that_fire_on_the_same_faces_match_by_their_numbers() -> None:
    x, order = features(2, 80), np.random.default_rng(3).permutation(80)
    y = x[:, order] * np.linspace(1, 9, 80) + 0.05 * features(4, 80)
    y[:, 7] = 0
    found = match_activations(Entries.of(x), Entries.of(y))
    expected = {int(feature): place for place, feature in enumerate(order) if place != 7}
    assert {i: j for i, j in pairs(found).items() if i != order[7]} == expected
    assert found.n == 79 and found.found_again == 1


def test_nothing_matches_where_nothing_fires() -> None:
    found = match_activations(Entries.of(np.zeros((5, 3))), Entries.of(features(0, 4)[:5]))
    assert len(found.first) == 0 and np.isnan(found.mcc) and np.isnan(found.found_again)
