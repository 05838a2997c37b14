"""The controls of the table: random features, those of most energy, principal components, the mean template."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.activity.survey import survey
from fsae_mlflow.features.clusters import Clusters
from fsae_mlflow.metrics import Fidelity
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification import figures
from fsae_mlflow.verification.controls import energies, feature_controls, label, template_controls, to_fit_on
from fsae_mlflow.verification.evaluation import evaluate
from fsae_mlflow.verification.pairs import make_pairs
from fsae_mlflow.verification.protocol import McNemar
from fsae_mlflow.verification.settings import CONTROLS, EvaluateSettings
from fsae_mlflow.verification.tables import LABELS, Evaluation
from tests.sae.making import firing_sae

D_SAE = 32
SETTINGS = EvaluateSettings(folds=4, pairs_per_fold=40, batch_size=64, device="cpu", controls=",".join(CONTROLS))


@pytest.fixture(scope="module")
def sae(template_set: TemplateSet) -> SparseAutoencoder:
    x = torch.from_numpy(template_set.templates)
    return firing_sae("gated", x, D_SAE, density=0.3).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def evaluation(
    template_set: TemplateSet, sae: SparseAutoencoder, tmp_path_factory: pytest.TempPathFactory
) -> Evaluation:
    return evaluate(SETTINGS, templates=template_set, sae=sae, output=tmp_path_factory.mktemp("evaluation"))


def split_of(n_low: int, n_high: int, n_dead: int) -> Clusters:
    kind = np.repeat([0, 1, 2], [n_low, n_high, n_dead])
    return Clusters(low=kind == 0, high=kind == 1, split=0.1, separated=True)


def test_random_features_are_as_many_as_the_clusters_fire_and_follow_the_seed() -> None:
    split = split_of(20, 12, 30)
    masks = feature_controls(["random"], split, None, seed=1)
    assert {name: mask.sum() for name, mask in masks.items()} == {"random_high": 12, "random_low": 20}
    for mask in masks.values():
        assert not mask[-30:].any() and (mask & split.high).any() and (mask & split.low).any()
    again, other = (feature_controls(["random"], split, None, seed=seed) for seed in (1, 2))
    for name, mask in masks.items():
        np.testing.assert_array_equal(again[name], mask)
        assert (other[name] != mask).any()


def test_the_features_of_most_energy_come_first() -> None:
    energy = np.array([3.0, 1.0, 9.0, 0.0, 3.0, 2.0])
    masks = feature_controls(["energy"], split_of(3, 2, 1), energy, seed=0)
    assert np.flatnonzero(masks["energy_high"]).tolist() == [0, 2]
    assert np.flatnonzero(masks["energy_low"]).tolist() == [0, 2, 4]


def test_energy_is_the_mean_square_of_what_a_feature_adds(template_set: TemplateSet, sae: SparseAutoencoder) -> None:
    features = sae.encode(torch.from_numpy(template_set.templates)).double().numpy()
    assert (features.max(axis=0) == 0).any() or (features > 0).any(axis=0).all()
    expected = np.square(features).mean(axis=0) * np.square(sae.W_dec.double().numpy()).sum(axis=1)
    found = energies(sae, survey(sae, template_set.templates).activity)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)
    dead = dataclasses.replace(survey(sae, template_set.templates).activity, counts=np.zeros(D_SAE, np.int64))
    assert (energies(sae, dead) == 0).all()


def test_all_components_give_the_templates_back(template_set: TemplateSet) -> None:
    x = template_set.templates
    found = template_controls(["pca"], x, x[:200], {"high": 16.2, "low": 1.4}, normalize=False)
    assert list(found) == ["pca_high", "pca_low"]
    assert [(one.n_features, one.l0) for one in found.values()] == [(16, 16.0), (1, 1.0)]
    np.testing.assert_allclose(found["pca_high"].templates, x, atol=1e-4)
    # One component: all estimates lie on a line through the mean of the others, along their largest variance.
    mean = x[:200].mean(axis=0)
    estimates = found["pca_low"].templates - mean
    axis = np.linalg.svd(x[:200] - mean)[2][0]
    np.testing.assert_allclose(estimates, np.outer((x - mean) @ axis, axis), atol=1e-3)
    assert found["pca_low"].fidelity.fvu == pytest.approx(Fidelity.of(x, found["pca_low"].templates).fvu)
    none = template_controls(["pca"], x, x, {"high": 0.2, "low": 0.0}, normalize=True)
    assert none["pca_low"].n_features == 1
    lengths = np.linalg.norm(
        template_controls(["pca"], x, x, {"high": 16.0}, normalize=True)["pca_high"].templates, axis=1
    )
    np.testing.assert_allclose(lengths, 1, atol=1e-3)


def test_the_mean_template_is_that_of_the_others(template_set: TemplateSet) -> None:
    x = template_set.templates
    found = template_controls(["mean"], x[:5], x[100:], {"high": 1.0, "low": 1.0}, normalize=False)
    assert list(found) == ["mean"] and found["mean"].n_features == 0
    np.testing.assert_allclose(found["mean"].templates, np.tile(x[100:].mean(axis=0), (5, 1)), rtol=1e-5)


def test_components_are_fitted_on_others_where_there_are_enough(template_set: TemplateSet) -> None:
    few = make_pairs(template_set.image_ids, template_set.identities, folds=2, pairs_per_fold=2)
    fitted, said = to_fit_on(template_set, few, None)
    people = template_set.identities
    others = ~np.isin(people, people[few.rows])
    assert said == f"{others.sum()} templates of people who are in no pair"
    np.testing.assert_array_equal(fitted, template_set.templates[others])
    many = make_pairs(template_set.image_ids, template_set.identities, folds=4, pairs_per_fold=100)
    fitted, said = to_fit_on(template_set, many, None)
    assert said.endswith("templates of the pairs themselves") and len(fitted) == len(many.rows)
    assert to_fit_on(template_set, many, template_set)[1] == "400 given templates"


def test_each_cluster_is_beside_its_controls(evaluation: Evaluation, sae: SparseAutoencoder) -> None:
    rows = {row.name: row for row in evaluation.rows}
    of_high, of_low = ([f"{name}_{cluster}" for name in ("random", "energy", "pca")] for cluster in ("high", "low"))
    assert list(rows) == [*LABELS, *of_high, *of_low, "mean"]
    for cluster in ("high", "low"):
        for name in ("random", "energy"):
            assert rows[f"{name}_{cluster}"].n_features == rows[cluster].n_features > 0
        components = rows[f"pca_{cluster}"]
        assert components.n_features == components.l0 == round(rows[cluster].l0)
        assert components.label == label(f"pca_{cluster}", components.n_features)
    assert rows["energy_high"].label.startswith(f"Decoded from the {rows['high'].n_features} features of most energy")
    mean = rows["mean"]
    assert (mean.accuracy.mean, mean.eer, mean.auc) == (0.5, 0.5, 0.5) and (mean.distances == 0).all()
    assert mean.fvu == pytest.approx(1, abs=0.05) and mean.n_features == mean.l0 == 0
    assert evaluation.notes[1] == "Random features drawn with seed 0."
    assert evaluation.notes[0].startswith("Energy") and evaluation.notes[0].endswith("the 400 verified templates.")


def test_each_row_is_compared_with_the_original_one(evaluation: Evaluation) -> None:
    original = evaluation.rows[0].accuracy.correct
    for row in evaluation.rows:
        assert row.against == McNemar.of(original, row.accuracy.correct)
        names = ("n_lost", "n_gained", "mcnemar_p")
        assert [row.metrics[name] for name in names] == [row.against.n_lost, row.against.n_gained, row.against.p]
        assert row.accuracy.n_correct - original.sum() == row.against.n_gained - row.against.n_lost
    assert evaluation.rows[0].metrics["mcnemar_p"] == 1 and evaluation.rows[-1].against.n_lost > 0


def test_energies_are_those_of_the_given_templates(
    template_set: TemplateSet, sae: SparseAutoencoder, tmp_path: Path
) -> None:
    given = dataclasses.replace(SETTINGS, controls="energy, mean")
    found = evaluate(given, templates=template_set, sae=sae, output=tmp_path, density_templates=template_set)
    assert [row.name for row in found.rows] == [*LABELS, "energy_high", "energy_low", "mean"]
    assert "measured on 400 given templates" in found.notes[0]
    assert found.notes[1] == "Components and mean fitted on 400 given templates."
    table = (tmp_path / "table.md").read_text()
    assert all(note in table for note in found.notes)


def test_the_figures_leave_out_what_would_hide_the_rest(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[str]] = []
    for name in ("accuracy_figure", "roc_figure"):
        monkeypatch.setattr(
            figures, name, lambda series, path, **_: drawn.append([one.label for one in series]) or path
        )
    figures.write_figures(evaluation, tmp_path)
    points, curves = drawn
    labels = [row.label for row in evaluation.rows]
    assert points == labels[:-1]
    assert curves == [*LABELS.values(), *(one for one in labels if "most energy" in one)]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"controls": "random,best"}, "controls must be none or some of random, energy, pca, mean; one is 'best'."),
        ({"controls": "pca", "sae": "none"}, "sae is none; give an SAE, or leave controls out"),
    ],
)
def test_unknown_controls_and_controls_of_no_sae_are_refused(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        EvaluateSettings(**given)
    assert EvaluateSettings(controls="none", sae="none").control_names == []
    assert EvaluateSettings(controls="pca, random,,pca").control_names == ["pca", "random"]
