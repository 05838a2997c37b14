from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fsae_mlflow.features import survey as module
from fsae_mlflow.features.survey import Survey, TopRows, encoded, survey
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings
from fsae_mlflow.templates.set import TemplateSet
from tests.template_sets import TemplateWriter, face_row


def hand_set_sae() -> GatedSAE:
    """Four features on two dimensions: +x, −x, +y above one half, and one that never fires."""
    sae = GatedSAE(2, 4, GatedSettings(), scale=0.5)
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
        sae.W_dec.copy_(sae.W_enc)
        sae.b_gate.copy_(torch.tensor([0.0, 0.0, -0.5, -100.0]))
    return sae.eval().requires_grad_(False)


TEMPLATES = np.array([[2, 0], [4, 2], [-2, 4], [6, 0.5]], dtype=np.float32)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_survey_counts_what_a_hand_set_sae_fires(batch_size: int) -> None:
    found = survey(hand_set_sae(), TEMPLATES, batch_size=batch_size)
    assert found.counts.tolist() == [3, 1, 2, 0]
    assert found.top.maxima.tolist() == [3, 1, 2, 0]
    assert found.sums.tolist() == [6, 1, 3, 0]
    assert found.alive == 0.75


def test_mean_l0_is_the_sum_of_densities() -> None:
    sae = GatedSAE(8, 64, GatedSettings())
    templates = np.random.default_rng(0).normal(size=(37, 8)).astype(np.float32)
    found = survey(sae, templates, batch_size=10)
    fired = [int((sae.encode(template[None]) > 0).sum()) for template in torch.from_numpy(templates)]
    assert found.l0 == pytest.approx(np.mean(fired), rel=1e-12)
    assert found.density.sum() == pytest.approx(found.l0, rel=1e-12)


def test_templates_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\b3\b.*\b2\b"):
        survey(hand_set_sae(), np.zeros((1, 3), np.float32))


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        survey(hand_set_sae(), np.zeros((0, 2), np.float32))


def test_a_template_set_is_read_shard_by_shard(tmp_path: Path) -> None:
    templates = np.random.default_rng(0).normal(size=(11, 2)).astype(np.float32)
    with TemplateWriter(tmp_path, width=2, metadata={}, shard_rows=4) as writer:
        writer.write([face_row(f"p/{row}.png", template, b"") for row, template in enumerate(templates)])
    batches = [x.numpy() for x, _ in encoded(hand_set_sae(), TemplateSet.open(tmp_path), batch_size=3)]
    assert [len(batch) for batch in batches] == [3, 1, 3, 1, 3]
    np.testing.assert_array_equal(np.concatenate(batches), templates)


def full_sort(features: np.ndarray, feature: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.argsort(-features[:, feature], kind="stable")[:k]
    rows = rows[features[rows, feature] > 0]
    return rows, features[rows, feature]


@pytest.mark.parametrize("waiting", [1, 40, 10**6])
@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_top_rows_equal_a_full_sort(batch_size: int, waiting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", waiting)
    torch.manual_seed(0)
    sae = GatedSAE(6, 24, GatedSettings()).eval().requires_grad_(False)
    templates = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    found = survey(sae, templates, k=4, batch_size=batch_size)
    dense = sae.encode(torch.from_numpy(templates)).numpy()
    np.testing.assert_allclose(found.top.maxima, dense.max(axis=0), rtol=1e-5)
    for feature in range(24):
        rows, activations = full_sort(dense, feature, 4)
        np.testing.assert_array_equal(found.top.of(feature)[0], rows)
        np.testing.assert_allclose(found.top.of(feature)[1], activations, rtol=1e-5)


@pytest.mark.parametrize("waiting", [1, 10, 10**6])
@given(values=arrays(np.int64, (23, 3), elements=st.integers(0, 3)), k=st.integers(1, 6), batch_size=st.integers(1, 30))
def test_of_equal_activations_the_earlier_row_stays(waiting: int, values: np.ndarray, k: int, batch_size: int) -> None:
    features = values.astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WAITING", waiting)
        top = TopRows(3, k)
        for first in range(0, 23, batch_size):
            top.add(torch.from_numpy(features[first : first + batch_size]), first=first)
    for feature in range(3):
        for found, expected in zip(top.of(feature), full_sort(features, feature, k), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_no_more_entries_are_kept_than_k_a_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 50)
    found = Survey(10, k=3)
    for seed in range(40):
        found.add(np.random.default_rng(seed).random((5, 10), dtype=np.float32))
        assert sum(len(rows) for *_, rows in found.top._parts) <= 3 * 10 + 50 + 5 * 10


def test_rows_that_do_not_fire_are_left_out() -> None:
    sae = GatedSAE(1, 3, GatedSettings()).requires_grad_(False)
    sae.W_enc.copy_(torch.tensor([[1.0], [-1.0], [0.0]]))
    found = survey(sae, np.array([[1], [2], [-3]], dtype=np.float32), k=3).top
    assert [[values.tolist() for values in found.of(feature)] for feature in range(3)] == [
        [[1, 0], [2, 1]],
        [[2], [3]],
        [[], []],
    ]


@pytest.mark.parametrize("feature", [-1, 2])
def test_an_unknown_feature_is_refused(feature: int) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 1; it is {feature}"):
        Survey(2).top.of(feature)
