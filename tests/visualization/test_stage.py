import csv
import dataclasses
import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet as pq
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
from fsae_mlflow.visualization.choosing import named_targets
from fsae_mlflow.visualization.controls import Made, of_others
from fsae_mlflow.visualization.dictionary import Dictionary
from fsae_mlflow.visualization.figures import image_table, write_figures
from fsae_mlflow.visualization.results import Visualization
from fsae_mlflow.visualization.settings import VisualizeSettings
from fsae_mlflow.visualization.stage import visualize
from fsae_mlflow.visualization.targets import Target
from tests.template_sets import TemplateWriter, face_row

SETTINGS = VisualizeSettings(
    features="3, 9",
    n_images=2,
    n_top_faces=4,
    steps=10,
    lr=0.05,
    images_at_once=3,
    record_every=4,
    controls="real,other,random,pixels",
    device="cpu",
)


@pytest.fixture(scope="module")
def judge(recognizer: Recognizer) -> Recognizer:
    """Another recognizer: the templates of the first, turned."""
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(5))).Q
    turned = nn.Sequential(recognizer.network, nn.Linear(12, 12, bias=False)).eval().requires_grad_(False)
    turned[1].weight.copy_(rotation)
    return Recognizer(turned, dataclasses.replace(recognizer.card, name="turned"))


@pytest.fixture(scope="module")
def logged() -> list[tuple[int, dict[str, float]]]:
    return []


@pytest.fixture(scope="module")
def done(
    templates: TemplateSet,
    sae: GatedSAE,
    recognizer: Recognizer,
    judge: Recognizer,
    tmp_path_factory: pytest.TempPathFactory,
    logged: list[tuple[int, dict[str, float]]],
) -> Visualization:
    return visualize(
        SETTINGS,
        templates=templates,
        sae=sae,
        recognizer=recognizer,
        output=tmp_path_factory.mktemp("images"),
        judge=judge,
        about={"sae": "abc"},
        on_metrics=lambda metrics, step: logged.append((step, metrics)),
    )


def folder(done: Visualization) -> Path:
    return done.images[0].path.parent.parent


def test_an_image_per_feature_and_seed_is_written(done: Visualization) -> None:
    assert done.targets == [Target((3,)), Target((9,))]
    assert [(image.target.feature, image.seed) for image in done.images] == [(3, 0), (3, 1), (9, 0), (9, 1)]
    names = [f"feature-0000{feature}-seed-{seed}.png" for feature in (3, 9) for seed in (0, 1)]
    assert sorted(path.name for path in done.images[0].path.parent.iterdir()) == names
    assert [path.name for path in done.dials.values()] == ["feature-00003.png", "feature-00009.png"]
    with Image.open(done.images[0].path) as image, Image.open(done.dials[Target((3,))]) as dial:
        assert image.size == (112, 112) and image.mode == "RGB"
        assert dial.size == (7 * 112, 112)


def test_the_verdict_is_on_the_saved_file(done: Visualization, sae: GatedSAE, recognizer: nn.Module) -> None:
    for image in done.images:
        with Image.open(image.path) as file:
            features = sae.encode(recognizer(to_float(np.array(file)[None])))[0]
        found, feature = image.verdict, image.target.feature
        assert found.activation == pytest.approx(float(features[feature]), rel=1e-5)
        assert found.rank == 1 + int((features > features[feature]).sum())
        assert found.to_maximum == pytest.approx(found.activation / done.references[Target((feature,))].maximum)


def test_references_are_those_of_the_whole_template_set(
    done: Visualization, templates: TemplateSet, sae: GatedSAE
) -> None:
    dense = sae.encode(torch.from_numpy(templates.templates)).numpy()
    for feature in (3, 9):
        found = done.references[Target((feature,))]
        assert found.density == (dense[:, feature] > 0).mean()
        assert found.maximum == pytest.approx(dense[:, feature].max(), rel=1e-6)
        assert found.percentile == pytest.approx(np.percentile(dense[:, feature], 99.9), rel=0.07)
        assert found.mean_norm == pytest.approx(np.linalg.norm(templates.templates, axis=1).mean(), rel=1e-6)


def test_controls_are_judged_beside_the_images(done: Visualization, sae: GatedSAE, recognizer: nn.Module) -> None:
    by_control: dict[str, list] = {}
    for image in done.controls:
        by_control.setdefault(image.control, []).append(image)
    assert {name: len(images) for name, images in by_control.items()} == {
        "real": 2,
        "other": 2,
        "random": 2,
        "pixels": 2,
    }
    assert [image.verdict.to_maximum for image in by_control["real"]] == pytest.approx([1, 1], rel=0.05)
    for image, feature in zip(by_control["other"], (3, 9), strict=True):
        with Image.open(image.path) as file:
            features = sae.encode(recognizer(to_float(np.array(file)[None])))[0]
        assert image.target.feature == feature and f"0000{12 - feature}" in image.path.name
        assert image.verdict.activation == pytest.approx(float(features[feature]), rel=1e-5, abs=1e-6)
    assert {image.parametrization for image in by_control["pixels"]} == {"pixels"}


def test_tables_hold_every_image_and_recorded_step(done: Visualization) -> None:
    table = pq.read_table(folder(done) / "images.parquet")
    assert json.loads(table.schema.metadata[b"fsae_mlflow"])["sae"] == "abc"
    rows = table.to_pylist()
    assert [(row["feature"], row["seed"], row["file"]) for row in rows][1] == (
        3,
        1,
        "feature_images/feature-00003-seed-1.png",
    )
    assert rows[0]["activation"] == done.images[0].verdict.activation
    with (folder(done) / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [int(line["step"]) for line in history if line["target"] == "3" and line["seed"] == "1"] == [0, 4, 8, 10]
    dials = pq.read_table(folder(done) / "dials.parquet").to_pylist()
    assert [(row["feature"], row["place"], row["step"]) for row in dials[:3]] == [(3, 0, -3), (3, 1, -2), (3, 2, -1)]
    controls = pq.read_table(folder(done) / "controls.parquet")
    assert controls.num_rows == 8 and "control" in controls.column_names


def test_metrics_are_means_over_all_images(done: Visualization, logged: list[tuple[int, dict[str, float]]]) -> None:
    steps = {step: metrics for step, metrics in logged if "optimization/objective" in metrics}
    assert list(steps) == [0, 4, 8, 10]
    assert steps[10]["optimization/objective"] > steps[0]["optimization/objective"]
    metrics = logged[-1][1]
    ratios = [image.verdict.to_maximum for image in done.images]
    assert metrics["mean_to_maximum"] == pytest.approx(np.mean(ratios))
    assert {"confirmed", "features_confirmed", "alike_between_seeds", "mean_judge_auc"} <= metrics.keys()
    assert {"controls/real/fires", "controls/random/confirmed", "controls/other/mean_judge_auc"} <= metrics.keys()


def test_what_is_there_is_not_made_again(
    done: Visualization, templates: TemplateSet, sae: GatedSAE, recognizer: Recognizer, judge: Recognizer
) -> None:
    kept, lost = done.images[0].path, done.images[3].path
    before, times = lost.read_bytes(), {path: path.stat().st_mtime_ns for path in (kept, *done.dials.values())}
    lost.write_bytes(before[:100])  # as a process leaves it that dies
    given = {"templates": templates, "sae": sae, "recognizer": recognizer, "judge": judge, "about": {"sae": "abc"}}
    again = visualize(SETTINGS, **given, output=folder(done))
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert lost.read_bytes() == before
    assert [image.verdict for image in again.images] == [image.verdict for image in done.images]


@pytest.mark.parametrize(("changed", "sae_name"), [({"parametrization": "fourier"}, "abc"), ({}, "another")])
def test_what_was_made_otherwise_is_made_again(
    changed: dict[str, object],
    sae_name: str,
    templates: TemplateSet,
    sae: GatedSAE,
    recognizer: Recognizer,
    tmp_path: Path,
) -> None:
    given = {"templates": templates, "sae": sae, "recognizer": recognizer, "output": tmp_path}
    first = visualize(small(features="3"), **given, about={"sae": "abc"}).images[0].path
    before = first.stat().st_mtime_ns
    visualize(small(features="3,9", n_images=2), **given, about={"sae": "abc"})
    assert first.stat().st_mtime_ns == before
    visualize(small(features="3", **changed), **given, about={"sae": sae_name})
    assert first.stat().st_mtime_ns != before


def test_figures_show_every_feature(done: Visualization, templates: TemplateSet) -> None:
    logged: list[tuple[str, int]] = []
    written = write_figures(
        SETTINGS, done, templates, None, folder(done), on_sheet=lambda path, step: logged.append((path.name, step))
    )
    assert logged == [("feature-00003.png", 3), ("feature-00009.png", 9)]
    assert [path.name for path in written] == ["features.png", "feature-00003.png", "feature-00009.png"]
    for path in written:
        with Image.open(path) as figure:
            assert figure.width > 900 and figure.height > 300
    table = image_table(done, folder(done))
    assert len(table) == 12 and {row["control"] for row in table} == {"", "real", "other", "random", "pixels"}


def test_features_get_columns_of_what_their_images_confirm(done: Visualization) -> None:
    columns = done.columns(24)
    assert columns["n_images"][[3, 9, 0]].tolist() == [2, 2, 0]
    for feature in (3, 9):
        n = sum(image.verdict.confirmed for image in done.images if image.target.feature == feature)
        assert columns["n_images_confirmed"][feature] == n and columns["image_confirmed"][feature] == (n > 1)


def small(**values: object) -> VisualizeSettings:
    given = {"parametrization": "pixels", "n_images": 1, "n_top_faces": 2, "steps": 1, "dial": False, "device": "cpu"}
    return VisualizeSettings(**given | {"controls": "none"} | values)  # pyright: ignore[reportArgumentType]


def test_best_features_come_from_both_clusters_and_all_are_those_that_fire(
    templates: TemplateSet, sae: GatedSAE, recognizer: Recognizer, tmp_path: Path
) -> None:
    known = GatedSAE(sae.d_in, sae.d_sae, GatedSettings()).requires_grad_(False)
    known.load_state_dict(sae.state_dict())
    known.density[:4] = torch.tensor([0.4, 0.41, 1e-4, 1e-4])
    given = {"templates": templates, "sae": known, "recognizer": recognizer}
    done = visualize(small(n_features=4), **given, output=tmp_path / "best")
    assert {target.feature for target in done.targets[:2]} == {0, 1}
    assert {target.feature for target in done.targets[2:]} == {2, 3}
    every = visualize(small(features="all"), **given, output=tmp_path / "all")
    assert [target.feature for target in every.targets] == np.flatnonzero(every.of.activity.counts).tolist()


def test_several_features_at_once_fire_and_one_is_kept_silent(
    templates: TemplateSet, sae: GatedSAE, recognizer: Recognizer, tmp_path: Path
) -> None:
    settings = small(features="3,3+9,3-9", steps=60, lr=0.05, objective="gate", noise=0.0)
    done = visualize(settings, templates=templates, sae=sae, recognizer=recognizer, output=tmp_path)
    gates = []
    for image in done.images:
        with Image.open(image.path) as file:
            gates.append(sae.gate_preactivation(recognizer(to_float(np.array(file)[None])))[0, [3, 9]].tolist())
    (_, alone), (_, both), (_, without) = gates
    assert both > alone > without


@pytest.mark.parametrize("features", ["3,24", "three", "", "3;4", "-1", "3-3"])
def test_features_that_do_not_exist_are_refused(
    features: str, templates: TemplateSet, sae: GatedSAE, recognizer: Recognizer, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^features"):
        visualize(small(features=features), templates=templates, sae=sae, recognizer=recognizer, output=tmp_path)


def test_features_are_named_once() -> None:
    assert named_targets("3,9,3", 24) == [Target((3,)), Target((9,))]
    assert named_targets("best", 24) == named_targets("all", 24) == []


def test_the_papers_preset_is_the_papers() -> None:
    paper = VisualizeSettings(**VisualizeSettings.PRESETS["paper"])  # pyright: ignore[reportArgumentType]
    assert (paper.parametrization, paper.objective, paper.steps, paper.lr) == ("dip", "gate", 4096, 1e-4)
    assert (paper.images_at_once, paper.jitter, paper.noise, paper.scale, paper.rotation) == (1, 0, 0.0, 0.0, 0.0)
    assert (paper.jpeg, paper.gray, paper.ensemble) == (0.0, 0.0, "")


@pytest.mark.parametrize(
    ("field", "value"), [("steps", -1), ("lr", -0.1), ("n_images", 0), ("jitter", -1), ("controls", "real,x")]
)
def test_settings_out_of_bounds_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field} must be"):
        VisualizeSettings(**{field: value})  # pyright: ignore[reportArgumentType]


def test_a_judge_must_be_another_recognizer(
    templates: TemplateSet, sae: GatedSAE, recognizer: Recognizer, judge: Recognizer, tmp_path: Path
) -> None:
    given = {"templates": templates, "sae": sae, "recognizer": recognizer, "output": tmp_path}
    with pytest.raises(UserError, match="judge must differ from the recognizer"):
        visualize(small(), **given, judge=recognizer)
    with pytest.raises(UserError, match="judge must differ from the recognizer"):
        visualize(small(), **given, judge=judge, ensemble=judge)


def test_a_judge_needs_people_from_whom_nothing_was_made(
    sae: GatedSAE, recognizer: Recognizer, judge: Recognizer, tmp_path: Path
) -> None:
    with TemplateWriter(tmp_path / "set", width=12, metadata={}) as writer:
        writer.write([face_row(f"p/{index}.png", np.ones(12), b"") for index in range(3)])
    given = {"templates": TemplateSet.open(writer.folder), "sae": sae, "recognizer": recognizer, "output": tmp_path}
    with pytest.raises(UserError, match=r"judge needs faces of people .* only one person\. Leave judge empty"):
        visualize(small(), **given, judge=judge)


def test_what_would_be_ignored_is_refused(
    templates: TemplateSet, sae: GatedSAE, recognizer: Recognizer, tmp_path: Path
) -> None:
    given = {"templates": templates, "sae": sae, "recognizer": recognizer, "output": tmp_path}
    with pytest.raises(UserError, match="start: images of parametrization=pixels do not begin with a face"):
        visualize(small(start="mean"), **given)
    with pytest.raises(UserError, match="attributes has an effect only together with judge and readings"):
        visualize(small(attributes="labels.csv"), **given)


def test_the_other_image_is_to_fire_none_of_the_same_features() -> None:
    targets = [Target((3,)), Target((3, 9)), Target((5,), (3,))]
    made = [
        Made(target=one, seed=0, path=Path(one.name), parametrization="", dictionary=Mock(Dictionary), control="")
        for one in targets
    ]
    found = of_others(made)
    assert [(one.target.name, one.path.name) for one in found] == [("3", "5-3"), ("3+9", "5-3"), ("5-3", "3")]
    assert of_others(made[:2]) == []


def test_an_ensemble_changes_the_image(
    done: Visualization,
    templates: TemplateSet,
    sae: GatedSAE,
    recognizer: Recognizer,
    judge: Recognizer,
    tmp_path: Path,
) -> None:
    settings = dataclasses.replace(SETTINGS, n_images=1, controls="none", dial=False)
    given = {"templates": templates, "sae": sae, "recognizer": recognizer}
    both = visualize(settings, **given, output=tmp_path, ensemble=judge)
    assert both.images[0].path.read_bytes() != done.images[0].path.read_bytes()


def test_another_recognizer_than_the_templates_is_refused(
    templates: TemplateSet, sae: GatedSAE, recognizer: Recognizer, tmp_path: Path
) -> None:
    card = dataclasses.asdict(recognizer.card)
    others = dataclasses.replace(templates, metadata=templates.metadata | {"recognizer": card | {"name": "other"}})
    settings = small(n_features=1)
    with pytest.raises(UserError, match=r"from recognizer other .* and templates from recognizer linear .*force=true"):
        visualize(settings, templates=others, sae=sae, recognizer=recognizer, output=tmp_path)
    assert not any(tmp_path.iterdir())
    forced = dataclasses.replace(settings, force=True)
    assert visualize(forced, templates=others, sae=sae, recognizer=recognizer, output=tmp_path).images
