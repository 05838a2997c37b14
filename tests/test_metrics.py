"""Metrics against their formulas in float64 NumPy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsae_mlflow import metrics
from fsae_mlflow.metrics import Fidelity, Sparsity, firing_counts
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings

KINDS: dict[str, Callable[[np.ndarray], np.ndarray | torch.Tensor]] = {
    "arrays": np.asarray,
    "tensors": torch.from_numpy,
}
kinds = pytest.mark.parametrize("kind", KINDS)


def rows(n: int, d: int, *, seed: int = 0, offset: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, d)) + offset).astype(np.float32)


def formulas(x: np.ndarray, x_hat: np.ndarray) -> tuple[float, float, float]:
    """fvu, cosine and mse."""
    x, x_hat = x.astype(np.float64), x_hat.astype(np.float64)
    error = ((x - x_hat) ** 2).sum()
    cosine = (x * x_hat).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(x_hat, axis=1)
    with np.errstate(divide="ignore"):
        return error / ((x - x.mean(axis=0)) ** 2).sum(), cosine.mean(), error / len(x)


@kinds
@pytest.mark.parametrize("n", [2, 50, metrics.CHUNK + 3])
def test_fidelity_is_its_formulas(kind: str, n: int) -> None:
    x, x_hat = rows(n, 6), rows(n, 6, seed=1)
    found = Fidelity.of(KINDS[kind](x), KINDS[kind](x_hat))
    assert found.n == n
    assert (found.fvu, found.cosine, found.mse) == pytest.approx(formulas(x, x_hat), rel=1e-12)


@kinds
@given(st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any))
def test_batches_add_up_to_one(kind: str, sizes: list[int]) -> None:
    x, x_hat = rows(sum(sizes), 4), rows(sum(sizes), 4, seed=2)
    features = np.maximum(x - 3, 0)
    whole, parts = Fidelity.of(x, x_hat), Fidelity()
    all_features, some_features = Sparsity(4), Sparsity(4)
    all_features.add(firing_counts(torch.from_numpy(features)), len(features))
    for first, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        batch = slice(first, first + size)
        parts.add(KINDS[kind](x[batch]), KINDS[kind](x_hat[batch]))
        some_features.add(firing_counts(torch.from_numpy(features[batch])), size)
    assert parts.n == whole.n
    assert (parts.cosine, parts.mse) == pytest.approx((whole.cosine, whole.mse), rel=1e-12)
    assert parts.fvu == pytest.approx(whole.fvu, rel=1e-9, nan_ok=True)
    np.testing.assert_array_equal(some_features.density, all_features.density)


def test_a_large_mean_leaves_fvu_exact() -> None:
    x, x_hat = (rows(40, 5, seed=seed, offset=1e4).astype(np.float64) for seed in (0, 1))
    assert Fidelity.of(x, x_hat).fvu == pytest.approx(formulas(x, x_hat)[0], rel=1e-10)


def test_fidelity_of_an_sae_with_b_dec() -> None:
    sae = GatedSAE(6, 24, GatedSettings(), scale=0.5).requires_grad_(False)
    sae.b_dec.copy_(torch.linspace(-1, 1, 6))
    x = rows(30, 6)
    x_hat = sae(torch.from_numpy(x)).numpy()
    found = Fidelity.of(x, x_hat)
    assert (found.fvu, found.cosine, found.mse) == pytest.approx(formulas(x, x_hat), rel=1e-12)


def test_known_estimates() -> None:
    x = rows(50, 6)
    assert Fidelity.of(x, np.tile(x.mean(axis=0), (50, 1))).fvu == pytest.approx(1, abs=1e-5)
    assert Fidelity.of(x, x).fvu == Fidelity.of(x, x).mse == 0
    assert [Fidelity.of(x, estimate).cosine for estimate in (7 * x, -x, 0 * x)] == pytest.approx([1, -1, 0])


@kinds
def test_without_variance_fvu_is_nan(kind: str) -> None:
    one, estimate = rows(1, 6), rows(1, 6, seed=1)
    for n in (1, 3, 700):
        found = Fidelity.of(*(KINDS[kind](np.repeat(x, n, axis=0)) for x in (one, estimate)))
        assert np.isnan(found.fvu)
        assert (found.cosine, found.mse) == pytest.approx(formulas(one, estimate)[1:], rel=1e-12)


def test_sparsity_is_its_formulas() -> None:
    features = np.maximum(rows(40, 9, offset=-0.5), 0)
    features[:, 2] = 0
    found = Sparsity(9)
    found.add(firing_counts(torch.from_numpy(features)), len(features))
    fires = features > 0
    np.testing.assert_array_equal(found.counts, fires.sum(axis=0))
    np.testing.assert_array_equal(found.density, fires.mean(axis=0))
    assert found.l0 == pytest.approx(fires.sum(axis=1).mean(), rel=1e-15)
    assert found.l0 == pytest.approx(found.density.sum(), rel=1e-15)
    assert found.alive == fires.any(axis=0).mean()


def test_only_values_above_zero_fire() -> None:
    assert firing_counts(torch.tensor([[-1.0, 0.0, 1e-30, float("nan")]])).tolist() == [0, 0, 1, 0]


def test_half_precision_counts_are_exact() -> None:
    assert firing_counts(torch.ones(5001, 1, dtype=torch.bfloat16)).tolist() == [5001]


def test_nothing_added_is_refused() -> None:
    for metric in ("fvu", "cosine", "mse"):
        with pytest.raises(ValueError, match="no templates to measure"):
            getattr(Fidelity(), metric)
    for metric in ("density", "l0"):
        with pytest.raises(ValueError, match="no templates to measure"):
            getattr(Sparsity(3), metric)
