"""The stage on faces whose second template dimension is a planted attribute, and whose third is one person."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.activity.survey import survey
from fsae_mlflow.features.describe import Described, describe
from fsae_mlflow.features.settings import DescribeSettings
from fsae_mlflow.features.table import read_description
from fsae_mlflow.report.described import reading_table, write_figures
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings
from fsae_mlflow.templates.set import TemplateSet
from tests.pictures import encoded
from tests.template_sets import TemplateWriter, face_row

N_PEOPLE, N_EACH, WIDTH = 120, 4, 16
ABOUT = {"sae": "digest of the SAE", "templates": "digest of the templates"}
PLAIN_FACE = encoded(Image.new("RGB", (112, 112), (90, 60, 30)), "JPEG")


@pytest.fixture(scope="module")
def hats() -> np.ndarray:
    """Whether each face wears a hat."""
    return np.random.default_rng(0).random(N_PEOPLE * N_EACH) < 0.3


@pytest.fixture(scope="module")
def templates(hats: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> TemplateSet:
    numbers = np.random.default_rng(1)
    x = numbers.normal(size=(N_PEOPLE * N_EACH, WIDTH)).astype(np.float32)
    people = np.repeat(np.arange(N_PEOPLE), N_EACH)
    x[:, 1] = 3 * hats + 0.3 * x[:, 1]
    x[:, 2] = np.where(people == 7, 4, 0.4 * x[:, 2])
    folder = tmp_path_factory.mktemp("hats")
    with TemplateWriter(folder, width=WIDTH, metadata={}, shard_rows=100) as writer:
        rows = [face_row(f"p{person:03}/{number}.png", x[number], PLAIN_FACE) for number, person in enumerate(people)]
        yaws = numbers.normal(size=len(rows))
        writer.write(dataclasses.replace(row, yaw=float(yaw)) for row, yaw in zip(rows, yaws, strict=True))
    return TemplateSet.open(folder)


@pytest.fixture(scope="module")
def labels(templates: TemplateSet, hats: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    coin = np.random.default_rng(2).integers(0, 2, len(hats))
    pyarrow.csv.write_csv(pa.table({"path": templates.image_ids, "hat": hats.astype(int), "coin": coin}), path)
    return path


def axes_sae() -> GatedSAE:
    """Feature j is dimension j of the template above 1; the last feature never fires."""
    sae = GatedSAE(WIDTH, WIDTH, GatedSettings())
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(WIDTH))
        sae.W_dec.copy_(torch.eye(WIDTH))
        sae.b_gate.fill_(-1.0)
        sae.b_gate[-1] = -100.0
    return sae.eval().requires_grad_(False)


def run(
    templates: TemplateSet,
    output: Path,
    *,
    judge: nn.Module | None = None,
    seen: np.ndarray | None = None,
    **values: object,
) -> tuple[Described, dict[str, float]]:
    metrics: dict[str, float] = {}
    found = describe(
        DescribeSettings(**{"controls": "raw", "n_top_faces": 6, **values}),
        templates=templates,
        sae=axes_sae(),
        judge=judge,
        about=ABOUT,
        output=output,
        on_metrics=lambda logged, _: metrics.update(logged),
        seen=seen,
    )
    assert found is not None
    return found, metrics


@pytest.fixture(scope="module")
def described(
    templates: TemplateSet, labels: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Described, dict[str, float]]:
    return run(templates, tmp_path_factory.mktemp("described"), attributes=str(labels))


def test_planted_meanings_are_read_and_the_rest_is_not(described: tuple[Described, dict[str, float]]) -> None:
    columns = described[0].description.columns
    assert columns["attribute"][1] == "hat"
    assert columns["attribute_strong"][1]
    assert columns["reading"][1].startswith("Hat (100 % of its top faces")
    assert columns["identity"][2] == "p007"
    assert columns["identity_confirmed"][2]
    assert 1 < columns["n_people"][2] < 20
    assert columns["reading"][-1] == "dead"
    others = [feature for feature in range(WIDTH - 1) if feature not in (1, 2)]
    assert not columns["attribute_confirmed"][others].any()
    assert set(columns["reading"][others]) == {"unread"}


def test_only_alive_features_have_antipodes(described: tuple[Described, dict[str, float]]) -> None:
    found, metrics = described
    antipode = found.description.columns["antipode"]
    assert antipode[:-1] == pytest.approx(0) and np.isnan(antipode[-1])  # the features are axes, and the last is dead
    assert (metrics["antipodes"], metrics["controls/raw/antipodes"]) == (0, 1)


def test_metrics_are_of_the_sae_and_of_controls(described: tuple[Described, dict[str, float]]) -> None:
    found, metrics = described
    assert metrics["readings/n_kinds"] == 1
    assert metrics["readings/strong_of_alive"] == pytest.approx(1 / (WIDTH - 1))
    assert metrics["readings/identity_of_alive"] == pytest.approx(1 / (WIDTH - 1))
    assert metrics["l0"] == pytest.approx(found.description.activity.l0)
    assert metrics["probes/auroc_k1"] > 0.6
    assert metrics["controls/raw/readings/n_kinds"] == 1
    assert found.n_people == (60, 60)


def test_what_is_written_is_read_again(described: tuple[Described, dict[str, float]]) -> None:
    found = described[0]
    read = read_description(found.files[0].parent)
    activity, expected = read.activity, found.description.activity
    np.testing.assert_array_equal(activity.counts, expected.counts)
    np.testing.assert_array_equal(activity.quantiles, expected.quantiles)
    assert activity.n_faces == N_PEOPLE * N_EACH
    for feature in range(WIDTH):
        for mine, theirs in zip(activity.top_of(feature), expected.top_of(feature), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert read.columns["reading"].tolist() == list(found.description.columns["reading"])
    read.require_of(sae=ABOUT["sae"], templates=ABOUT["templates"])
    with pytest.raises(UserError, match=r"describe sae digest of the SAE, but this run uses other"):
        read.require_of(sae="other")


def test_tables_name_faces_and_their_l0(described: tuple[Described, dict[str, float]], templates: TemplateSet) -> None:
    found = described[0]
    features, top, faces = (pq.read_table(path) for path in found.files)
    assert features.num_rows == WIDTH
    top_of_hat = top.filter((pa.compute.field("feature") == 1) & (pa.compute.field("list") == "top")).to_pylist()
    assert [row["place"] for row in top_of_hat] == list(range(6))
    assert all(templates.image_ids[row["row"]] == row["image_id"] for row in top_of_hat)
    dense = axes_sae().encode(torch.from_numpy(templates.templates)).numpy()
    assert faces.column("l0").to_pylist() == (dense > 0).sum(axis=1).tolist()
    assert faces.column("image_id").to_pylist() == templates.image_ids


def test_pictures_and_table_show_the_readings(
    described: tuple[Described, dict[str, float]], templates: TemplateSet, tmp_path: Path
) -> None:
    readings, dictionary = write_figures(described[0], templates, tmp_path)
    assert readings.stat().st_size > 10_000
    assert dictionary.stat().st_size > 5_000
    table = reading_table(described[0])
    assert {row["kind"] for row in table} == {"hat", "identity"}
    hat = next(row for row in table if row["kind"] == "hat")
    assert hat["share"] == 1
    assert hat["base"] == pytest.approx(0.3, abs=0.05)


def test_without_labels_other_readings_stay(templates: TemplateSet, tmp_path: Path) -> None:
    found, metrics = run(templates, tmp_path, controls="none")
    assert set(found.description.columns["attribute"]) == {""}
    assert metrics["readings/n_kinds"] == 0
    assert found.description.columns["identity_confirmed"][2]
    assert [path.name for path in write_figures(found, templates, tmp_path)] == ["readings.png"]


def test_a_judge_that_sees_the_same_for_all_faces_calls_all_features_monosemantic(
    templates: TemplateSet, tmp_path: Path
) -> None:
    class Constant(nn.Module):
        def forward(self, faces: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(faces), 8)

    found, _ = run(templates, tmp_path, controls="none", judge=Constant())
    assert found.description.columns["monosemanticity"][:-1] == pytest.approx(1)
    assert np.isnan(found.description.columns["monosemanticity"][-1])


def test_only_some_faces_are_read_of_a_large_set(templates: TemplateSet, tmp_path: Path) -> None:
    found, _ = run(templates, tmp_path, controls="none", read_faces=200)
    assert sum(found.n_people) < N_PEOPLE
    assert found.description.activity.n_faces == N_PEOPLE * N_EACH
    whole = survey(axes_sae(), templates).activity
    np.testing.assert_array_equal(found.description.activity.counts, whole.counts)


def test_identities_are_told_apart_by_whether_the_sae_has_seen_them(templates: TemplateSet, tmp_path: Path) -> None:
    trained = np.array(templates.identities) != "p007"
    _, metrics = run(templates, tmp_path, controls="none", seen=trained)
    assert metrics["readings/people_seen"] == pytest.approx(1 - 1 / N_PEOPLE)
    assert metrics["readings/identity_seen"] == 0
    _, metrics = run(templates, tmp_path, controls="none", seen=~trained)
    assert metrics["readings/identity_seen"] == 1


def test_an_attribute_that_few_have_is_named(
    templates: TemplateSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    people = np.unique(templates.identities)
    rare = "".join(f"{one},{int(one.split('/')[0] in people[:9])}\n" for one in templates.column("image_id"))
    (tmp_path / "labels.csv").write_text(f"path,Rare\n{rare}")
    run(templates, tmp_path / "out", controls="none", attributes=str(tmp_path / "labels.csv"))
    assert any("are not probed (Rare): in either half of the people, 10 must have" in one for one in caplog.messages)


def test_too_few_people_are_refused(tmp_path: Path) -> None:
    with TemplateWriter(tmp_path, width=WIDTH, metadata={}) as writer:
        x = np.random.default_rng(0).normal(size=(57, WIDTH))
        writer.write([face_row(f"p{row // 3}/{row}.png", x[row], PLAIN_FACE) for row in range(57)])
    with pytest.raises(UserError, match=r"at least 20 people; .* has 19"):
        run(TemplateSet.open(tmp_path), tmp_path / "out")


def test_an_unknown_control_is_refused() -> None:
    with pytest.raises(
        UserError, match="controls must be none or some of raw, random, data, pca, ica, kmeans, pursuit; one is 'lda'"
    ):
        DescribeSettings(controls="pca,lda")


@pytest.mark.parametrize("damage", ["missing", "foreign", "newer"])
def test_readings_that_cannot_be_read_are_refused(
    described: tuple[Described, dict[str, float]], tmp_path: Path, damage: str
) -> None:
    for path in described[0].files:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    table = pq.read_table(tmp_path / "features.parquet")
    if damage == "missing":
        (tmp_path / "top_faces.parquet").unlink()
    elif damage == "foreign":
        pq.write_table(table.replace_schema_metadata({}), tmp_path / "features.parquet")
    else:
        metadata = {b"fsae_mlflow": b'{"schema_version": 99}'}
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "features.parquet")
    with pytest.raises(UserError, match=r"readings: .*(make them with describe|has schema version 99)"):
        read_description(tmp_path)
