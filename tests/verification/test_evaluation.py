import csv
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.activity.survey import survey
from fsae_mlflow.features.table import Description
from fsae_mlflow.metrics import Fidelity
from fsae_mlflow.sae.saved import load_sae, save_sae
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification import evaluation
from fsae_mlflow.verification.decoding import decode_masked
from fsae_mlflow.verification.evaluation import evaluate
from fsae_mlflow.verification.pairs import find_rows, read_pairs
from fsae_mlflow.verification.protocol import squared_distances
from fsae_mlflow.verification.settings import EvaluateSettings
from fsae_mlflow.verification.tables import HEADER, LABELS, markdown
from tests.template_sets import TemplateWriter, face_row

WIDTH, PEOPLE, IMAGES = 16, 12, 5


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> TemplateSet:
    """Twelve people around directions of their own, all shifted by a common mean."""
    generator = np.random.default_rng(0)
    with TemplateWriter(tmp_path_factory.mktemp("templates"), width=WIDTH, metadata={}) as writer:
        for person in range(PEOPLE):
            center = generator.normal(size=WIDTH)
            for image in range(IMAGES):
                template = 3 * (center + 0.3 * generator.normal(size=WIDTH) + 0.5)
                writer.write([face_row(f"p{person}/{image}.png", template, b"")])
    return TemplateSet.open(writer.folder)


def exact_sae(scale: float = 0.25) -> GatedSAE:
    """Features ±e_i: encoding and decoding gives every template back."""
    sae = GatedSAE(WIDTH, 2 * WIDTH, GatedSettings(), scale=scale).eval().requires_grad_(False)
    both = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    sae.W_enc.copy_(both)
    sae.W_dec.copy_(both)
    sae.b_dec.copy_(torch.linspace(-0.2, 0.4, WIDTH))
    return sae


SETTINGS = EvaluateSettings(folds=4, pairs_per_fold=20, batch_size=7, device="cpu")


def test_an_exact_sae_leaves_the_accuracy_as_it_is(templates: TemplateSet, tmp_path: Path) -> None:
    logged: list[tuple[dict[str, float], int]] = []
    found = evaluate(
        SETTINGS,
        templates=templates,
        sae=exact_sae(),
        output=tmp_path,
        on_metrics=lambda metrics, step: logged.append((metrics, step)),
    )
    rows = {row.name: row for row in found.rows}
    assert list(rows) == ["original", "high", "low", "all"]
    np.testing.assert_allclose(rows["all"].distances, rows["original"].distances, atol=1e-5)
    assert rows["all"].fvu < 1e-10 and rows["all"].cosine == pytest.approx(1, abs=1e-6)
    assert rows["high"].n_features + rows["low"].n_features == 2 * WIDTH == rows["all"].n_features
    assert rows["high"].l0 + rows["low"].l0 == pytest.approx(rows["all"].l0)
    assert rows["all"].l0 == pytest.approx(WIDTH)
    assert rows["high"].fvu > 0.05 and rows["low"].fvu > 0.05
    assert logged == [(found.metrics, 0)] and found.metrics["all/accuracy"] == rows["all"].accuracy.mean
    assert all(math.isfinite(value) for value in found.metrics.values())
    alone = rows["original"]
    assert (alone.n_features, alone.l0, alone.fvu, alone.cosine) == (0, 0, 0, 1)
    assert found.metrics["n_pairs"] == len(found.pairs) == 160


def test_a_clusters_row_is_the_decoding_of_its_features_with_b_dec(templates: TemplateSet) -> None:
    sae = exact_sae()
    mask = np.arange(2 * WIDTH) < 5
    decoded = decode_masked(sae, templates.templates, {"some": mask, "none": np.zeros(2 * WIDTH, bool)}, batch_size=11)
    scaled = templates.templates * float(sae.scale)
    expected = np.tile(sae.b_dec.numpy(), (len(scaled), 1))
    expected[:, :5] += np.maximum(scaled - sae.b_dec.numpy(), 0)[:, :5]
    np.testing.assert_allclose(decoded["some"].templates, expected / float(sae.scale), atol=1e-5)
    np.testing.assert_allclose(
        decoded["none"].templates, np.tile(sae.b_dec.numpy() / float(sae.scale), (len(scaled), 1)), rtol=1e-6
    )
    assert decoded["some"].l0 == pytest.approx((scaled[:, :5] > sae.b_dec.numpy()[:5]).sum(axis=1).mean())
    assert decoded["none"].l0 == 0
    assert [one.n_features for one in decoded.values()] == [5, 0]
    for one in decoded.values():
        assert one.fidelity.fvu == pytest.approx(Fidelity.of(templates.templates, one.templates).fvu, rel=1e-5)


def test_the_training_sets_densities_split_the_features(templates: TemplateSet, tmp_path: Path) -> None:
    sae = exact_sae()
    counted = evaluate(SETTINGS, templates=templates, sae=sae, output=tmp_path)
    assert counted.density_source == "the 60 verified templates"
    sae.density.copy_(torch.linspace(0.001, 0.9, 2 * WIDTH))
    stored = evaluate(SETTINGS, templates=templates, sae=sae, output=tmp_path)
    assert stored.density_source == "the training templates"
    np.testing.assert_allclose(stored.density, sae.density.numpy())
    given = evaluate(SETTINGS, templates=templates, sae=sae, output=tmp_path, density_templates=templates)
    assert given.density_source == "60 given templates"
    np.testing.assert_array_equal(given.density, survey(sae, templates.templates).activity.density)
    assert (given.clusters.high != stored.clusters.high).any()


def test_the_densities_of_readings_come_first(
    templates: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = exact_sae()
    activity = survey(sae, templates.templates[:50]).activity
    sae.density.copy_(torch.linspace(0.001, 0.9, 2 * WIDTH))
    monkeypatch.delattr("fsae_mlflow.verification.evaluation.survey")
    description = Description(activity=activity, columns={}, about={})
    found = evaluate(SETTINGS, templates=templates, sae=sae, output=tmp_path, description=description)
    np.testing.assert_array_equal(found.density, activity.density)
    assert found.density_source == "50 templates by describe"


@pytest.mark.parametrize(
    ("other", "sentence"),
    [({"density_templates": "set"}, "readings and density_templates both say"), ({"sae": "none"}, "sae is none")],
)
def test_readings_beside_density_templates_or_without_an_sae_are_refused(other: dict[str, str], sentence: str) -> None:
    assert EvaluateSettings(**other) and EvaluateSettings(readings="folder")
    with pytest.raises(UserError, match=sentence):
        EvaluateSettings(readings="folder", **other)


def test_without_is_one_more_row_of_the_other_features(templates: TemplateSet, tmp_path: Path) -> None:
    sae, settings = exact_sae(), dataclasses.replace(SETTINGS, without="0, 5")
    found = evaluate(settings, templates=templates, sae=sae, output=tmp_path)
    assert [row.name for row in found.rows] == ["original", "high", "low", "all", "without"]
    row = found.rows[-1]
    assert row.label == "Decoded without 2 features (0, 5)" and row.n_features == 2 * WIDTH - 2
    # Only the parts of these features are missing: all others are decoded as before.
    features = sae.encode(torch.from_numpy(templates.templates)).numpy()
    parts = features[:, [0, 5]] @ sae.W_dec.numpy()[[0, 5]] / float(sae.scale)
    kept = np.isin(np.arange(2 * WIDTH), (0, 5), invert=True)
    decoded = decode_masked(sae, templates.templates, {"all": kept | True, "without": kept}, batch_size=7)
    np.testing.assert_allclose(decoded["all"].templates - decoded["without"].templates, parts, atol=1e-5)
    x_hat = (features * kept) @ sae.W_dec.numpy() / float(sae.scale) + (sae.b_dec / sae.scale).numpy()
    first, second = found.pairs.first, found.pairs.second
    np.testing.assert_allclose(row.distances, squared_distances(x_hat[first], x_hat[second]), atol=1e-5)
    assert "without/accuracy" in found.metrics and "(0, 5)" in (tmp_path / "table.md").read_text()


def read_as_male(male: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of readings in which features have the confirmed attribute Male, and no other meaning."""
    nothing, no = np.full(len(male), ""), np.zeros(len(male), bool)
    attribute = {"attribute": np.where(male, "Male", ""), "attribute_confirmed": male}
    return attribute | {"identity": nothing, "identity_confirmed": no, "pose": nothing}


def test_names_in_without_are_those_of_the_description(templates: TemplateSet, tmp_path: Path) -> None:
    sae, settings = exact_sae(), dataclasses.replace(SETTINGS, without="attribute:Male")
    with pytest.raises(UserError, match="give readings"):
        evaluate(settings, templates=templates, sae=sae, output=tmp_path)
    male = np.arange(2 * WIDTH) == 3
    columns = read_as_male(male)
    description = Description(activity=survey(sae, templates.templates).activity, columns=columns, about={})
    found = evaluate(settings, templates=templates, sae=sae, output=tmp_path, description=description)
    assert found.rows[-1].label == "Decoded without 1 feature (attribute Male)"


def test_a_named_attribute_without_labels_is_refused_before_templates_are_decoded(
    templates: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae, settings = exact_sae(), dataclasses.replace(SETTINGS, without="attribute:Male")
    male = np.arange(2 * WIDTH) == 3
    columns = read_as_male(male)
    description = Description(activity=survey(sae, templates.templates).activity, columns=columns, about={})
    monkeypatch.setattr(evaluation, "decode_masked", lambda *_, **__: pytest.fail("decoded"))
    given = {"templates": templates, "labeled": templates, "output": tmp_path, "description": description}
    with pytest.raises(UserError, match="without=attribute:Male needs labels of Male"):
        evaluate(settings, sae=sae, **given)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"without": "1", "sae": "none"}, "without leaves out features of an SAE, but sae is none"),
        ({"ablation": True, "sae": "none"}, "ablation leaves out features of an SAE, but sae is none"),
        ({"labeled_templates": "set"}, "give without, or leave labeled_templates out"),
    ],
)
def test_what_cannot_be_left_out_is_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        EvaluateSettings(**values)


def test_without_an_sae_one_row_is_measured(templates: TemplateSet, tmp_path: Path) -> None:
    found = evaluate(SETTINGS, templates=templates, sae=None, output=tmp_path)
    assert [row.name for row in found.rows] == ["original"]
    assert found.clusters is None and "density_split" not in found.metrics


def test_the_written_pairs_can_be_read_again(templates: TemplateSet, tmp_path: Path) -> None:
    found = evaluate(SETTINGS, templates=templates, sae=exact_sae(), output=tmp_path)
    again = find_rows(read_pairs(tmp_path / "pairs.csv"), templates, source="pairs.csv")
    for name in ("first", "second", "genuine", "fold"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found.pairs, name))
    from_file = EvaluateSettings(pairs=str(tmp_path / "pairs.csv"), device="cpu")
    repeated = evaluate(from_file, templates=templates, sae=None, output=tmp_path / "again")
    assert repeated.rows[0].metrics == found.rows[0].metrics
    with (tmp_path / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [line["row"] for line in table] == ["original", "high", "low", "all"]
    assert float(table[0]["accuracy"]) == found.rows[0].accuracy.mean
    with (tmp_path / "folds.csv").open() as file:
        folds = list(csv.DictReader(file))
    assert np.mean([float(line["accuracy_all"]) for line in folds]) == pytest.approx(found.rows[3].accuracy.mean)


def test_another_width_is_refused(templates: TemplateSet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\b16\b.*\b8\b"):
        evaluate(SETTINGS, templates=templates, sae=GatedSAE(8, 16, GatedSettings()), output=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("field", "value"), [("folds", 1), ("pairs_per_fold", 0), ("batch_size", 0), ("seed", -1)])
def test_settings_out_of_bounds_are_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field} must be"):
        EvaluateSettings(**{field: value})


def test_defaults_and_bounds() -> None:
    settings = EvaluateSettings(folds=2, pairs_per_fold=1_000_000, batch_size=1)
    assert EvaluateSettings(pairs_per_fold=1).pairs_per_fold == 1 and settings.folds == 2 and settings.batch_size == 1
    with pytest.raises(ValueError, match="pairs_per_fold must be"):
        EvaluateSettings(pairs_per_fold=1_000_001)
    default = EvaluateSettings()
    assert (default.folds, default.pairs_per_fold, default.seed, default.batch_size) == (10, 300, 0, 512)
    assert not default.force


def test_every_table_and_figure_is_written(templates: TemplateSet, tmp_path: Path) -> None:
    found = evaluate(SETTINGS, templates=templates, sae=exact_sae(), output=tmp_path)
    names = ["density.png", "folds.csv", "pairs.csv", "roc.png", "table.csv", "table.md", "table.png"]
    assert sorted(path.name for path in found.files) == names == sorted(path.name for path in tmp_path.iterdir())
    alone = evaluate(SETTINGS, templates=templates, sae=None, output=tmp_path / "alone")
    assert "density.png" not in [path.name for path in alone.files]


def test_the_markdown_table_holds_the_rows_metrics(templates: TemplateSet, tmp_path: Path) -> None:
    found = evaluate(SETTINGS, templates=templates, sae=exact_sae(), output=tmp_path)
    lines = markdown(found).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:6]]
    assert cells[0] == HEADER
    assert [line[0] for line in cells[2:]] == list(LABELS.values())
    for line, row in zip(cells[2:], found.rows, strict=True):
        assert len(line) == len(HEADER)
        assert line[3] == f"{row.accuracy.mean:.4f} ± {row.accuracy.std:.4f}"
        assert line[6] == line[7] == "too few pairs"
        assert (line[1] == "–") == (line[2] == "–") == (row.name == "original")
    assert "160 pairs in 4 folds" in lines[-1] and ("no valley" in lines[-1]) == (not found.clusters.separated)


def test_an_sae_on_unit_templates_is_measured_against_unit_templates(templates: TemplateSet, tmp_path: Path) -> None:
    sae = exact_sae(scale=1.0)
    sae.normalize = True
    found = {row.name: row for row in evaluate(SETTINGS, templates=templates, sae=sae, output=tmp_path).rows}
    assert found["all"].fvu < 1e-10
    np.testing.assert_allclose(found["all"].distances, found["original"].distances, atol=1e-5)


def test_an_sae_of_another_recognizers_templates_is_refused(templates: TemplateSet, tmp_path: Path) -> None:
    cards = [{"name": name, "weights_sha256": digit * 64} for name, digit in (("tiny", "0"), ("mobilefacenet", "1"))]
    others = dataclasses.replace(templates, metadata=templates.metadata | {"recognizer": cards[1]})
    save_sae(exact_sae(), tmp_path / "sae", settings={}, templates={"recognizer": cards[0]})
    sae = load_sae(tmp_path / "sae")
    with pytest.raises(
        UserError, match=r"sae: .*from recognizer tiny \(.*from recognizer mobilefacenet \(.*force=true"
    ):
        evaluate(SETTINGS, templates=others, sae=sae, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    forced = dataclasses.replace(SETTINGS, force=True)
    assert len(evaluate(forced, templates=others, sae=sae, output=tmp_path / "out").rows) == 4
    counted = {"density_templates": others, "output": tmp_path / "out"}
    same = dataclasses.replace(templates, metadata=templates.metadata | {"recognizer": cards[0]})
    with pytest.raises(UserError, match="mobilefacenet"):
        evaluate(SETTINGS, templates=same, sae=sae, **counted)
