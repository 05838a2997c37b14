"""Dictionaries that are computed: what their features are, how many fire, and that they are SAEs like any other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from sklearn.decomposition import FastICA

from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.directions import Whitening, distinct, pursued, whitened
from fsae_mlflow.sae.export import export_saelens
from fsae_mlflow.sae.saved import load_sae
from fsae_mlflow.sae.training import stage
from fsae_mlflow.sae.training.stage import Trained, train
from fsae_mlflow.sae.variants.registry import VARIANTS
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import train_settings
from tests.template_sets import TemplateWriter, face_row

N, WIDTH, N_SOURCES = 6000, 16, 8
COMPUTED = [name for name, kind in VARIANTS.items() if kind.directions]


@pytest.fixture(scope="module")
def mixing() -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0][:N_SOURCES]


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory, jpeg: bytes, mixing: np.ndarray) -> TemplateSet:
    """Templates of 1,500 people: 8 sources, each above 0 on a tenth of the faces, and little noise."""
    rng = np.random.default_rng(0)
    sources = rng.exponential(1, (N, N_SOURCES)) * (rng.random((N, N_SOURCES)) < 0.1)
    templates = 3 + sources @ mixing + 0.01 * rng.normal(size=(N, WIDTH))
    folder = tmp_path_factory.mktemp("sparse")
    with TemplateWriter(folder, width=WIDTH, metadata={"name": "sparse"}) as writer:
        writer.write([face_row(f"p{i // 4}/{i}.jpg", row, jpeg) for i, row in enumerate(templates)])
    return TemplateSet.open(folder)


def computed(variant: str, templates: TemplateSet, output: Path, **own: object) -> Trained:
    settings = train_settings(**{"variant": variant, "expansion": 1, "target_l0": 2.0, "holdout": 0.2, **own})
    return train(settings, templates=templates, output=output, on_metrics=lambda *_: None)


@pytest.mark.parametrize("variant", COMPUTED)
def test_a_computed_dictionary_is_an_sae_like_any_other(variant: str, sparse: TemplateSet, tmp_path: Path) -> None:
    made = computed(variant, sparse, tmp_path)
    assert made.metrics["heldout/l0"] == pytest.approx(2, rel=0.05)
    assert made.metrics["heldout/fvu"] < 0.5 and "epoch_kept" not in made.metrics
    loaded = load_sae(tmp_path)
    x = torch.from_numpy(sparse.templates[:50])
    assert torch.equal(loaded.encode(x), made.sae.encode(x))
    assert float(made.sae.density.sum()) == pytest.approx(made.metrics["train/l0"], rel=1e-5)
    again = computed(variant, sparse, tmp_path / "again")
    assert torch.equal(again.sae.W_dec, made.sae.W_dec)
    export_saelens(loaded, tmp_path / "saelens")


@pytest.mark.parametrize(
    "another", [{"expansion": 2}, {"center": True}, {"normalize": True}, {"holdout": 0.3}, {"seed": 1}]
)
def test_what_a_computed_dictionary_reads_changes_it(another: dict, sparse: TemplateSet, tmp_path: Path) -> None:
    one, other = computed("ica", sparse, tmp_path / "one"), computed("ica", sparse, tmp_path / "other", **another)
    assert not all(torch.equal(a, b) for a, b in zip(one.sae.parameters(), other.sae.parameters(), strict=True))
    assert VARIANTS["ica"].reads is not None and another.keys() <= VARIANTS["ica"].reads


def test_another_l0_than_the_target_is_told_without_advice_to_train(
    sparse: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stage, "reached", lambda *_: False)
    computed("pca", sparse, tmp_path)
    assert "and not target_l0 2; take more templates or a smaller expansion." in caplog.text


def test_independent_components_encode_as_those_of_sklearn(sparse: TemplateSet, tmp_path: Path) -> None:
    sae = computed("ica", sparse, tmp_path, target_l0=1.0, holdout=0.0, seed=5).sae
    templates = torch.from_numpy(sparse.templates)
    x = (sae.scaled(templates) - sae.scaled(templates).double().mean(dim=0)).double().numpy()
    z = whitened(x, Whitening.of(x, WIDTH // 2))
    components = FastICA(whiten=False, random_state=5).fit(z).transform(z)
    signed = np.concatenate([components, -components], axis=1)
    level = float(sae.threshold[0])  # pyright: ignore[reportArgumentType, reportIndexIssue]
    assert sae.encode(templates).numpy() == pytest.approx(np.where(signed > level, signed, 0), abs=2e-3)
    assert (signed > level).sum() == pytest.approx(N, rel=1e-3)


def test_the_decoder_is_the_ridge_regression_on_the_features(sparse: TemplateSet, tmp_path: Path) -> None:
    sae = computed("pca", sparse, tmp_path, holdout=0.0).sae
    templates = torch.from_numpy(sparse.templates)
    x, features = sae.scaled(templates).double().numpy(), sae.encode(templates).double().numpy()
    f = features - features.mean(axis=0)
    ridge = 0.1 * np.diag(np.square(features).mean(axis=0))
    expected = np.linalg.solve(f.T @ f / N + ridge, f.T @ (x - x.mean(axis=0)) / N)
    assert sae.W_dec.numpy() == pytest.approx(expected, abs=1e-3 * np.abs(expected).max())
    assert sae(templates).mean(dim=0).numpy() == pytest.approx(sparse.templates.mean(axis=0), rel=1e-4)


def test_pursuit_finds_one_sided_sources(sparse: TemplateSet, mixing: np.ndarray, tmp_path: Path) -> None:
    sae = computed("pursuit", sparse, tmp_path).sae
    directions = sae.W_dec.numpy() / np.linalg.norm(sae.W_dec.numpy(), axis=1, keepdims=True)
    assert (directions @ mixing.T).max(axis=0).min() > 0.95
    first = directions[: WIDTH // 2]  # the pursued ones, and not their opposites
    assert (first @ mixing.T).max(axis=1).min() > 0.9


def test_more_directions_than_dimensions_can_be_pursued() -> None:
    rng = np.random.default_rng(2)
    axes = np.concatenate([np.eye(16), hadamard(16) / 4])  # 32 directions of 16 dimensions, cosines of at most 0.25
    sources = rng.exponential(size=(20_000, 32)) * (rng.random((20_000, 32)) < 0.03)
    z = (sources @ axes + 0.01 * rng.normal(size=(20_000, 16))).astype(np.float32)
    z -= z.mean(axis=0)
    found = pursued(
        whitened(z.astype(np.float64), Whitening.of(z, 16)) @ Whitening.of(z, 16).components.astype("f4"), 0
    )
    kept = found[distinct(found, 100)]
    # More than the 16 that an orthogonal method could find; also turned to the longer tail.
    assert ((kept @ axes.T).max(axis=0) > 0.98).sum() >= 20
    assert len(kept) < 40
    assert (kept @ kept.T - np.eye(len(kept))).max() < 0.3


def test_what_cannot_be_computed_is_refused(sparse: TemplateSet, tmp_path: Path, jpeg: bytes) -> None:
    with pytest.raises(UserError, match="target_l0 must be at most the number of features, 16; it is 17"):
        computed("ica", sparse, tmp_path / "far", target_l0=17.0)
    with TemplateWriter(tmp_path / "same", width=WIDTH, metadata={}) as writer:
        writer.write([face_row(f"p{i}/{i}.jpg", np.ones(WIDTH), jpeg) for i in range(30)])
    with pytest.raises(UserError, match="variant=pca needs templates of at least two directions; all 30 have the same"):
        computed("pca", TemplateSet.open(tmp_path / "same"), tmp_path / "out", holdout=0.0)
