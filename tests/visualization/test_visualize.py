import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.aligned import to_float
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.visualization.assessment import Reference, assess, save_image
from fsae_mlflow.visualization.settings import VisualizeSettings
from fsae_mlflow.visualization.visualize import Visualization, visualize

SETTINGS = VisualizeSettings(
    features="3, 9",
    n_images=2,
    n_top_faces=4,
    parametrization="pixels",
    steps=10,
    lr=0.05,
    images_at_once=3,
    record_every=4,
    device="cpu",
)


@pytest.fixture(scope="module")
def done(
    templates: TemplateSet, sae: GatedSAE, recognizer: nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> Visualization:
    return visualize(
        SETTINGS, templates=templates, sae=sae, recognizer=recognizer, output=tmp_path_factory.mktemp("images")
    )


def test_an_image_per_feature_and_seed_is_written(done: Visualization) -> None:
    assert done.features == [3, 9]
    assert [(image.feature, image.seed) for image in done.images] == [(3, 0), (3, 1), (9, 0), (9, 1)]
    names = [
        "feature-00003-seed-0.png",
        "feature-00003-seed-1.png",
        "feature-00009-seed-0.png",
        "feature-00009-seed-1.png",
    ]
    assert sorted(path.name for path in done.images[0].path.parent.iterdir()) == names
    assert sorted(path.name for path in done.table.parent.iterdir()) == [
        "features.png",
        "history.csv",
        "images",
        "table.csv",
    ]
    with Image.open(done.grid) as grid:
        assert grid.width > 900 and grid.height > 300
    with Image.open(done.images[0].path) as image:
        assert image.size == (112, 112) and image.mode == "RGB"


def test_the_assessment_is_of_the_saved_file(done: Visualization, sae: GatedSAE, recognizer: nn.Module) -> None:
    for image in done.images:
        with Image.open(image.path) as file:
            features = sae.encode(recognizer(to_float(np.asarray(file)[None].copy())))[0]
        assert image.assessment.activation == pytest.approx(float(features[image.feature]), rel=1e-5)
        assert image.assessment.rank == 1 + int((features > features[image.feature]).sum())
        assert image.assessment.to_maximum == pytest.approx(
            image.assessment.activation / done.references[image.feature].maximum
        )


def test_references_are_those_of_the_whole_template_set(
    done: Visualization, templates: TemplateSet, sae: GatedSAE
) -> None:
    dense = sae.encode(torch.from_numpy(templates.templates)).numpy()
    for feature in done.features:
        found = done.references[feature]
        assert found.density == (dense[:, feature] > 0).mean()
        assert found.maximum == pytest.approx(dense[:, feature].max(), rel=1e-6)
        assert found.percentile == pytest.approx(np.percentile(dense[:, feature], 99.9), rel=0.07)
        assert found.mean_norm == pytest.approx(np.linalg.norm(templates.templates, axis=1).mean(), rel=1e-6)


def test_tables_hold_every_image_and_recorded_step(done: Visualization) -> None:
    with done.table.open() as file:
        table = list(csv.DictReader(file))
    assert [(int(line["feature"]), int(line["seed"])) for line in table] == [(3, 0), (3, 1), (9, 0), (9, 1)]
    assert float(table[0]["activation"]) == done.images[0].assessment.activation
    with (done.table.parent / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [int(line["step"]) for line in history if line["feature"] == "3" and line["seed"] == "1"] == [0, 3, 7, 10]


def test_metrics_are_reported_per_image_and_over_all(
    templates: TemplateSet, sae: GatedSAE, recognizer: nn.Module, tmp_path: Path
) -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    visualize(
        SETTINGS,
        templates=templates,
        sae=sae,
        recognizer=recognizer,
        output=tmp_path,
        on_metrics=lambda metrics, step: logged.append((step, metrics)),
    )
    names = {name for _, metrics in logged for name in metrics}
    assert {
        "feature-9-seed-1/objective",
        "feature-9-seed-1/activation",
        "feature-9-seed-1/norm_ratio",
        "fires",
        "mean_to_maximum",
        "mean_norm_ratio",
    } <= names


def test_best_features_come_from_both_clusters(
    templates: TemplateSet, sae: GatedSAE, recognizer: nn.Module, tmp_path: Path
) -> None:
    settings = VisualizeSettings(
        n_features=4, n_images=1, n_top_faces=2, parametrization="pixels", steps=1, device="cpu"
    )
    known = GatedSAE(sae.d_in, sae.d_sae, GatedSettings()).requires_grad_(False)
    known.load_state_dict(sae.state_dict())
    known.density[:4] = torch.tensor([0.4, 0.41, 1e-4, 1e-4])
    done = visualize(settings, templates=templates, sae=known, recognizer=recognizer, output=tmp_path)
    assert set(done.features[:2]) == {0, 1} and set(done.features[2:]) == {2, 3}


@pytest.mark.parametrize("features", ["3,24", "three", "", "3;4", "-1"])
def test_features_that_do_not_exist_are_refused(
    features: str, templates: TemplateSet, sae: GatedSAE, recognizer: nn.Module, tmp_path: Path
) -> None:
    settings = VisualizeSettings(features=features, device="cpu")
    with pytest.raises(ValueError, match="features must be best, or numbers from 0 to 23"):
        visualize(settings, templates=templates, sae=sae, recognizer=recognizer, output=tmp_path)


def test_an_image_that_loses_its_activation_to_rounding_is_seen(
    sae: GatedSAE, recognizer: nn.Module, tmp_path: Path
) -> None:
    image = torch.full((3, 112, 112), 0.5)
    path = save_image(image, tmp_path / "gray.png")
    reference = Reference(density=0.0, maximum=0.0, percentile=0.0, mean_norm=1.0)
    found = assess(path, 0, recognizer=recognizer, sae=sae, reference=reference, device=torch.device("cpu"))
    with Image.open(path) as file:
        assert np.asarray(file).max() == np.asarray(file).min() == 128
    assert np.isnan(found.to_maximum)
    assert found.shifted == pytest.approx(found.activation, abs=1e-6)


def test_the_papers_preset_is_the_papers() -> None:
    paper = VisualizeSettings(**VisualizeSettings.PRESETS["paper"])  # pyright: ignore[reportArgumentType]
    assert (paper.parametrization, paper.steps, paper.lr, paper.images_at_once, paper.jitter) == (
        "dip",
        4096,
        1e-4,
        1,
        0,
    )


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("lr", 0.0), ("n_images", 0), ("jitter", -1)])
def test_settings_out_of_bounds_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field} must be"):
        VisualizeSettings(**{field: value})  # pyright: ignore[reportArgumentType]


def test_another_recognizer_than_the_templates_is_refused(
    templates: TemplateSet, sae: GatedSAE, recognizer: Recognizer, tmp_path: Path
) -> None:
    card = dataclasses.asdict(recognizer.card)
    others = dataclasses.replace(templates, metadata=templates.metadata | {"recognizer": card | {"name": "other"}})
    settings = VisualizeSettings(n_features=1, n_images=1, steps=1, device="cpu")
    with pytest.raises(UserError, match=r"from recognizer other .* and templates from recognizer linear .*force=true"):
        visualize(settings, templates=others, sae=sae, recognizer=recognizer, output=tmp_path)
    assert not any(tmp_path.iterdir())
    forced = dataclasses.replace(settings, force=True)
    assert visualize(forced, templates=others, sae=sae, recognizer=recognizer, output=tmp_path).images


def test_a_given_activity_is_shown_and_nothing_is_encoded(
    done: Visualization,
    templates: TemplateSet,
    sae: GatedSAE,
    recognizer: nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("fsae_mlflow.visualization.visualize.survey")
    top = done.activity.top.kept(done.activity.top.used, most=2)
    made = visualize(
        dataclasses.replace(SETTINGS, n_images=1, steps=1),
        templates=templates,
        sae=sae,
        recognizer=recognizer,
        output=tmp_path,
        activity=done.activity.with_top(top),
    )
    assert made.references == done.references
    for feature in made.features:
        assert made.activity.top_of(feature)[0].tolist() == done.activity.top_of(feature)[0][:2].tolist()
