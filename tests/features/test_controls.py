from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA, FastICA

from fsae_mlflow.features.controls import control
from fsae_mlflow.provenance import Origin, require_same_recognizer
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.directions import DIRECTIONS, Whitening
from fsae_mlflow.sae.saved import load_sae, save_sae

ORIGIN = Origin("templates: here", "tiny", "abc")
N, D = 3000, 12
SIGNED = ("raw", "random", "pca", "ica")


def mixed(n_sources: int = D, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Raw templates whose unit templates are a mean plus mixtures of sparse sources, and the mixing directions."""
    numbers = np.random.default_rng(seed)
    sources = numbers.laplace(size=(N, n_sources)) * np.linspace(1, 2, n_sources)
    mixing = np.linalg.qr(numbers.normal(size=(D + 1, D + 1)))[0]
    # The last direction is the mean: small deviations from it hardly change the length.
    return (7 * mixing[-1] + 0.01 * sources @ mixing[:n_sources]).astype(np.float32), mixing[:n_sources]


def made(name: str, templates: np.ndarray, n_features: int = 2 * D, seed: int = 0) -> SparseAutoencoder:
    return control(name, templates, n_features=n_features, seed=seed, origin=ORIGIN)


def standardized(templates: np.ndarray) -> np.ndarray:
    """Templates of unit length minus their mean, at a mean square length of 1."""
    x = templates.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x -= x.mean(axis=0)
    return x / np.sqrt(np.square(x).sum(axis=1).mean())


def encoded(sae: SparseAutoencoder, templates: np.ndarray) -> np.ndarray:
    return sae.encode(torch.from_numpy(templates)).numpy()


def assert_signed(features: np.ndarray, components: np.ndarray, *, error: float = 2e-4) -> None:
    expected = np.maximum(np.concatenate([components, -components], axis=1), 0)
    assert features == pytest.approx(expected, abs=error * expected.max())


def test_raw_dimensions_are_the_templates_own() -> None:
    templates = np.random.default_rng(1).normal(1, 1, size=(50, 6)).astype(np.float32)
    assert_signed(encoded(made("raw", templates, 12), templates), standardized(templates))
    assert_signed(encoded(made("raw", templates, 8), templates), standardized(templates)[:, :4])
    assert made("raw", templates, 99).d_sae == 12


def test_principal_components_are_those_of_sklearn() -> None:
    templates, _ = mixed()
    components = PCA(5).fit_transform(standardized(templates))
    features = encoded(made("pca", templates, 10), templates)
    signs = np.sign(((features[:, :5] - features[:, 5:]) * components).sum(axis=0))
    assert_signed(features, components * signs)


def test_independent_components_are_those_of_sklearn_and_the_sources() -> None:
    templates, mixing = mixed()
    fit = FastICA(D, whiten="unit-variance", whiten_solver="eigh", random_state=3)
    components = fit.fit_transform(standardized(templates))
    sae = made("ica", templates, 2 * D, seed=3)
    features = encoded(sae, templates)
    found = features[:, :D] - features[:, D:]
    assert found.T @ found / N == pytest.approx(np.eye(D), abs=1e-3)
    order = np.abs(found.T @ components).argmax(axis=1)
    signs = np.sign((found * components[:, order]).sum(axis=0))
    assert_signed(features, components[:, order] * signs, error=0.02)
    similar = np.abs(mixing @ sae.W_dec[:D].numpy().T) / sae.W_dec[:D].norm(dim=1).numpy()
    assert similar[linear_sum_assignment(-similar)].min() > 0.98


def test_components_without_variance_are_not_used() -> None:
    templates, _ = mixed(n_sources=5)
    assert len(Whitening.of(standardized(templates), D).size) in (5, 6)  # the length bends the plane a little
    for name in ("pca", "ica"):
        sae = made(name, templates)
        assert sae.d_sae in (10, 12)
        assert encoded(sae, templates).max() < 100


def test_random_directions_are_unit_and_seeded() -> None:
    templates, _ = mixed()
    first = made("random", templates, 40)
    assert first.d_sae == 40
    assert first.W_enc.norm(dim=1).numpy() == pytest.approx(np.ones(40))
    assert torch.equal(first.W_enc, made("random", templates, 40).W_enc)
    assert not torch.equal(first.W_enc, made("random", templates, 40, seed=1).W_enc)
    assert_signed(encoded(first, templates), standardized(templates) @ first.W_enc[:20].double().numpy().T)


@pytest.mark.parametrize("name", SIGNED)
def test_all_components_decode_to_the_template(name: str) -> None:
    templates, _ = mixed()
    sae = made(name, templates, 2 * (D + 1))
    unit = templates / np.linalg.norm(templates, axis=1, keepdims=True)
    error = sae(torch.from_numpy(templates)).numpy() - unit
    assert np.square(error).sum() < 1e-3 * np.square(unit - unit.mean(axis=0)).sum()


@pytest.mark.parametrize("name", DIRECTIONS)
def test_the_length_of_a_template_does_not_matter(name: str) -> None:
    templates, _ = mixed()
    sae = made(name, templates, 8)
    assert encoded(sae, 3 * templates) == pytest.approx(encoded(sae, templates), abs=1e-4)


def test_five_percent_fire_each_centroid() -> None:
    numbers = np.random.default_rng(2)
    centers = np.linalg.qr(numbers.normal(size=(8, 8)))[0]
    person = np.arange(1600) % 8
    templates = (centers[person] + 0.02 * numbers.normal(size=(1600, 8))).astype(np.float32)
    sae = made("kmeans", templates, 8)
    features = encoded(sae, templates)
    assert (features > 0).mean(axis=0) == pytest.approx(np.full(8, 0.05), abs=1e-3)
    for feature in features.T:  # each centroid fires on one of the eight groups only
        assert len(set(person[feature > 0])) == 1
    x = standardized(templates)
    level = np.quantile(x @ sae.W_enc.double().numpy().T, 0.95, axis=0)
    assert features == pytest.approx(np.maximum(x @ sae.W_enc.double().numpy().T - level, 0), abs=1e-5)
    assert made("kmeans", templates[:5], 8).d_sae == 5


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_control_is_an_sae_like_any_other(name: str, tmp_path: Path) -> None:
    templates, _ = mixed()
    sae = made(name, templates, 8)
    assert sae.density.numpy() == pytest.approx((encoded(sae, templates) > 0).mean(axis=0))
    assert not sae.training and not any(weights.requires_grad for weights in sae.parameters())
    assert sae.origin == Origin(f"control: {name}", "tiny", "abc")
    require_same_recognizer(ORIGIN, sae.origin, force=False)
    x = sae.scaled(torch.from_numpy(templates)).double()
    assert float(x.square().sum(dim=1).mean()) == pytest.approx(1, rel=1e-4)
    save_sae(sae, tmp_path, settings={}, templates={})
    assert np.array_equal(encoded(load_sae(tmp_path), templates), encoded(sae, templates))


@pytest.mark.parametrize(
    ("name", "n_features", "same", "error"),
    [
        ("pca", 1, False, "pca must have at least 2 features"),
        ("pca", 8, True, "pca needs templates of at least two directions; all 3000 have the same"),
    ],
)
def test_what_cannot_be_fitted_is_refused(name: str, n_features: int, same: bool, error: str) -> None:
    templates = np.ones((N, D), np.float32) if same else mixed()[0]
    with pytest.raises(ValueError, match=error):
        made(name, templates, n_features)


def test_what_does_not_converge_is_said(caplog: pytest.LogCaptureFixture) -> None:
    made("ica", np.random.default_rng(0).normal(size=(400, 40)).astype(np.float32), 80)
    assert "ICA of 40 components did not converge in 200 iterations" in caplog.text
