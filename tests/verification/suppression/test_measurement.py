import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.labels.attributes import Labels
from fsae_mlflow.features.suppression import Selection
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.pairs import RowPairs, make_pairs
from fsae_mlflow.verification.protocol import cross_validate, squared_distances
from fsae_mlflow.verification.suppression.faces import faces_to_probe
from fsae_mlflow.verification.suppression.measurement import Suppression, measure_suppression
from tests.template_sets import TemplateWriter, face_row

D_IN, N_PEOPLE, N_FACES = 10, 80, 5


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> TemplateSet:
    """80 people; dimension 0 is positive on faces with a hat, dimension 1 on faces with glasses."""
    numbers = np.random.default_rng(0)
    with TemplateWriter(tmp_path_factory.mktemp("set"), width=D_IN, metadata={}) as writer:
        for person in range(N_PEOPLE):
            center = numbers.normal(size=D_IN)
            for face in range(N_FACES):
                template = center + 0.3 * numbers.normal(size=D_IN)
                template[:2] = numbers.choice([-1, 1], size=2) * numbers.uniform(0.5, 1.5, size=2)
                writer.write([face_row(f"p{person:02d}/{face}.png", template, b"")])
    return TemplateSet.open(writer.folder)


@pytest.fixture(scope="module")
def labels(templates: TemplateSet) -> Labels:
    hat, glasses = (templates.templates[:, column] > 0 for column in (0, 1))
    hat = hat.astype(np.float64)
    hat[::9] = np.nan
    few = np.zeros(len(templates))
    few[:3] = 1
    return Labels(booleans={"hat": hat, "glasses": glasses.astype(np.float64), "few": few}, numbers={"age": hat})


@pytest.fixture(scope="module")
def pairs(templates: TemplateSet) -> RowPairs:
    return make_pairs(templates.image_ids, templates.identities, folds=4, pairs_per_fold=60)


def exact() -> SparseAutoencoder:
    """Features ±e_i of raw templates: each is a dimension's positive or negative part."""
    sae = GatedSAE(D_IN, 2 * D_IN, GatedSettings()).eval().requires_grad_(False)
    both = torch.cat([torch.eye(D_IN), -torch.eye(D_IN)])
    sae.W_enc.copy_(both)
    sae.W_dec.copy_(both)
    return sae


def selection(*features: int, attributes: tuple[str, ...] = ("hat",)) -> Selection:
    mask = np.isin(np.arange(2 * D_IN), features)
    return Selection(features=mask, attributes=list(attributes), words="attribute hat")


def measure(chosen: Selection, templates: TemplateSet, labels: Labels, pairs: RowPairs, output: Path) -> Suppression:
    faces = faces_to_probe(chosen, templates, labels, seed=0)
    assert faces is not None
    alive = np.ones(2 * D_IN, dtype=bool)
    return measure_suppression(
        chosen, sae=exact(), alive=alive, faces=faces, templates=templates, pairs=pairs, output=output
    )


@pytest.fixture(scope="module")
def measured(
    templates: TemplateSet, labels: Labels, pairs: RowPairs, tmp_path_factory: pytest.TempPathFactory
) -> Suppression:
    return measure(selection(0, D_IN), templates, labels, pairs, tmp_path_factory.mktemp("out"))


def test_each_method_leaves_what_it_must(measured: Suppression) -> None:
    lines = {line.method: line for line in measured.lines}
    assert list(lines) == ["original", "leace", "mean_difference", "all", "without", "random"]
    assert {line.attribute for line in measured.lines} == {"hat"}
    for method in ("original", "all", "random"):
        assert lines[method].linear.value > 0.95 and lines[method].mlp.value > 0.75, method
    for method in ("leace", "mean_difference", "without"):
        assert abs(lines[method].linear.value - 0.5) < 0.15, method
    # The two features carry the hat alone: nothing is left for a network either, and glasses stay readable.
    assert abs(lines["without"].mlp.value - 0.5) < 0.15
    for method in ("original", "leace", "mean_difference", "all", "without"):
        assert lines[method].others > 0.95, method
    assert measured.n_people == (40, 40)


def test_pairs_are_verified_with_templates_treated_alike(
    measured: Suppression, templates: TemplateSet, pairs: RowPairs
) -> None:
    lines = {line.method: line for line in measured.lines}
    left = templates.templates.copy()
    left[:, 0] = 0
    for method, x in (("original", templates.templates), ("all", templates.templates), ("without", left)):
        distances = squared_distances(x[pairs.first], x[pairs.second])
        expected = cross_validate(distances, pairs.genuine, pairs.fold)
        np.testing.assert_allclose(lines[method].accuracy.accuracies, expected.accuracies, err_msg=method)
    # Hats change from picture to picture: without them faces are verified better.
    assert lines["without"].accuracy.mean > lines["all"].accuracy.mean


def test_a_line_a_method_and_attribute_is_written(
    templates: TemplateSet, labels: Labels, pairs: RowPairs, tmp_path: Path
) -> None:
    both = selection(0, 1, D_IN, D_IN + 1, attributes=("hat", "glasses"))
    found = measure(both, templates, labels, pairs, tmp_path)
    assert [path.name for path in found.files] == ["suppression.csv", "suppression.md", "suppression.png"]
    with (tmp_path / "suppression.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["method"], line["attribute"]) for line in lines[:3]] == [
        ("original", "hat"),
        ("original", "glasses"),
        ("leace", "hat"),
    ]
    assert len(lines) == 12
    by_name = {(line.method, line.attribute): line for line in found.lines}
    for attribute in ("hat", "glasses"):
        for method in ("leace", "without"):
            assert abs(by_name[method, attribute].linear.value - 0.5) < 0.15
        name = f"without/{attribute}/leace/auroc_linear"
        assert found.metrics[name] == by_name["leace", attribute].linear.value
    assert not any(name.endswith("others") for name in found.metrics)
    text = (tmp_path / "suppression.md").read_text()
    assert "Decoded without 4 features (attribute hat)" in text and "too few pairs" in text
    assert "40 others" in text and "whose people are among those of the probes" in text


@pytest.mark.parametrize(
    ("attribute", "sentence"),
    [
        ("hta", "without=attribute:hta needs labels of hta .*the labels have hat, "),
        ("age", "without=attribute:age needs labels of age with the values 0 and 1"),
        ("few", "a probe of few, each half of the people must have ten with it"),
    ],
)
def test_named_attributes_that_no_probe_can_be_trained_on_are_refused(
    templates: TemplateSet, labels: Labels, attribute: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        faces_to_probe(selection(0, attributes=("hat", attribute)), templates, labels, seed=0)


def test_inferred_attributes_that_no_probe_can_be_trained_on_are_left_out(
    templates: TemplateSet, labels: Labels, pairs: RowPairs, tmp_path: Path
) -> None:
    nobody, hat = np.full(len(templates), np.nan), labels.booleans["hat"]
    some = replace(labels, booleans=labels.booleans | {"A nobody": nobody, "B few": np.where(hat > 0, 1, nobody)})
    names = ("A nobody", "B few", "age +", "few", "glasses", "hat")
    chosen = replace(selection(0, 1, D_IN, D_IN + 1, attributes=names), inferred=True)
    found = measure(chosen, templates, some, pairs, tmp_path)
    assert {line.attribute for line in found.lines} == {"hat", "glasses"}
    assert "No probe could be trained on: A nobody, B few, age +, few." in (tmp_path / "suppression.md").read_text()


def test_of_inferred_attributes_those_known_of_most_faces_come_first(templates: TemplateSet, labels: Labels) -> None:
    person = np.arange(len(templates)) // N_FACES
    hat = np.where(person < N_PEOPLE / 2 + 10, templates.templates[:, 0] > 0, np.nan)
    old = (person >= N_PEOPLE / 2).astype(np.float64)
    some = replace(labels, booleans={"hat": hat, "old": old})
    chosen = replace(selection(0, attributes=("hat", "old")), inferred=True)
    faces = faces_to_probe(chosen, templates, some, seed=0)
    assert faces is not None and list(faces.targets) == ["old"] and faces.skipped == ["hat"]
    assert len(faces.templates) == len(templates)


@pytest.mark.parametrize("attributes", [(), ("age +", "few")])
def test_features_that_stand_for_no_attribute_are_not_probed(
    templates: TemplateSet, labels: Labels, caplog: pytest.LogCaptureFixture, attributes: tuple[str, ...]
) -> None:
    chosen = replace(selection(0, attributes=attributes), inferred=True)
    assert faces_to_probe(chosen, templates, labels, seed=0) is None
    assert "stand for no attribute that can be probed; no probe is trained" in caplog.text
