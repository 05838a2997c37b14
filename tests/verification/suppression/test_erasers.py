import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fsae_mlflow.verification.suppression.erasers import Eraser, leace, mean_difference

N, D = 600, 7


def planted(n_attributes: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated templates with attributes in oblique directions; the last dimension is a copy of the first."""
    numbers = np.random.default_rng(seed)
    z = (numbers.random((N, n_attributes)) < 0.4).astype(np.float64)
    noise = numbers.normal(size=(N, D - 1)) * np.array([1, 0.3, 2, 1, 0.05, 1])
    x = (noise + z @ numbers.normal(size=(n_attributes, D - 1))) @ numbers.normal(size=(D - 1, D - 1)) + 3
    return np.hstack([x, x[:, :1]]), z


def covariance(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=0)).T @ (z - z.mean(axis=0)) / len(x)


@pytest.mark.parametrize("n_attributes", [1, 3])
@pytest.mark.parametrize("eraser", [leace, mean_difference])
def test_erased_templates_do_not_correlate_with_the_attributes(eraser: Eraser, n_attributes: int) -> None:
    x, z = planted(n_attributes)
    erased = eraser(x, z)(x)
    if eraser is leace or n_attributes == 1:
        assert np.abs(covariance(erased, z)).max() < 1e-9 < 0.1 < np.abs(covariance(x, z)).max()
    means = [erased[has].mean(axis=0) - erased[~has].mean(axis=0) for has in (z > 0).T]
    assert np.abs(means).max() < (1e-9 if n_attributes == 1 else 0.5)
    probe = LogisticRegression(C=1e3, max_iter=5000).fit(erased, z[:, 0])
    assert roc_auc_score(z[:, 0], probe.decision_function(erased)) < 0.56
    np.testing.assert_allclose(eraser(x, z)(erased), erased, atol=1e-8)


def test_leace_is_the_formula_of_the_paper() -> None:
    x, z = planted(2)
    mean, sigma = x.mean(axis=0), covariance(x, x)
    values, vectors = np.linalg.eigh(sigma)
    kept = values > 1e-9
    W = vectors[:, kept] / np.sqrt(values[kept]) @ vectors[:, kept].T
    back = vectors[:, kept] * np.sqrt(values[kept]) @ vectors[:, kept].T
    whitened = W @ covariance(x, z)
    P = whitened @ np.linalg.pinv(whitened)
    expected = x - (x - mean) @ (back @ P @ W).T
    np.testing.assert_allclose(leace(x, z)(x), expected, atol=1e-9)


def test_leace_moves_templates_less_than_the_mean_difference() -> None:
    x, z = planted(1)
    moved = {eraser: np.square(eraser(x, z)(x) - x).sum(axis=1).mean() for eraser in (leace, mean_difference)}
    assert moved[leace] < 0.9 * moved[mean_difference]


def test_the_mean_difference_leaves_what_is_orthogonal_to_it() -> None:
    x, z = planted(1)
    direction = x[z[:, 0] > 0].mean(axis=0) - x[z[:, 0] == 0].mean(axis=0)
    direction /= np.linalg.norm(direction)
    np.testing.assert_allclose(mean_difference(x, z)(x), x - np.outer(x @ direction, direction), atol=1e-10)
