"""The stage on SAEs whose features are axes of the templates, permuted."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.comparison import stage
from fsae_mlflow.features.comparison.matching import FOUND_AGAIN, Matches
from fsae_mlflow.features.comparison.stage import STABILITY, Compared, Comparison, compare, shared_rows
from fsae_mlflow.features.settings import CompareSettings
from fsae_mlflow.provenance import Origin
from fsae_mlflow.report.stability import found_at, pair_table, write_figures
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import new_sae
from tests.template_sets import TemplateWriter, face_row

N, WIDTH = 300, 8
ORDER = np.array([3, 1, 0, 2, 7, 6, 5, 4])
X = np.random.default_rng(0).normal(size=(N, WIDTH)).astype(np.float32)
CARD = {"input_size": 112, "channels": "RGB", "mean": 0.5, "std": 0.5, "template_width": WIDTH}


def written(folder: Path, x: np.ndarray, ids: list[int], jpeg: bytes, recognizer: str) -> TemplateSet:
    card = {"recognizer": {**CARD, "name": recognizer, "weights_sha256": recognizer}}
    with TemplateWriter(folder, width=WIDTH, metadata=card, shard_rows=100) as writer:
        writer.write(face_row(f"p{i // 3:03}/{i:03}.png", x[i], jpeg) for i in ids)
    return TemplateSet.open(folder)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, jpeg: bytes) -> TemplateSet:
    return written(tmp_path_factory.mktemp("one"), X, list(range(N)), jpeg, "one")


@pytest.fixture(scope="module")
def of_another(tmp_path_factory: pytest.TempPathFactory, jpeg: bytes) -> TemplateSet:
    """Templates of another recognizer, rotated, of most of the same faces in another order."""
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0]
    ids = [*range(200, N), *range(10, 150)]
    return written(tmp_path_factory.mktemp("other"), X @ rotation, ids, jpeg, "other")


def axes_sae(templates: TemplateSet, axes: np.ndarray) -> SparseAutoencoder:
    """Feature j is what the template has along the axis j, above 0.5; the last one never fires."""
    sae = new_sae("relu", WIDTH, len(axes))
    with torch.no_grad():
        sae.W_enc.copy_(torch.from_numpy(axes.astype(np.float32)))
        sae.W_dec.copy_(torch.from_numpy(axes.astype(np.float32)))
        sae.b_enc.fill_(-0.5)
        sae.b_enc[-1] = -100.0
    sae.origin = templates.origin
    return sae.eval().requires_grad_(False)


def compared(templates: TemplateSet, axes: np.ndarray, name: str, initial: SparseAutoencoder | None = None) -> Compared:
    return Compared(name=name, sae=axes_sae(templates, axes), templates=templates, initial=initial)


def run(saes: list[Compared], output: Path, **values: object) -> tuple[Comparison, dict[str, float]]:
    metrics: dict[str, float] = {}
    settings = CompareSettings(saes=",".join(one.name for one in saes), **values)
    found = compare(settings, saes=saes, output=output, on_metrics=lambda logged, _: metrics.update(logged))
    return found, metrics


def test_features_are_found_again_by_direction_and_by_faces(templates: TemplateSet, tmp_path: Path) -> None:
    saes = [compared(templates, np.eye(WIDTH), "first"), compared(templates, np.eye(WIDTH)[ORDER], "second")]
    found, metrics = run(saes, tmp_path)
    assert metrics["n_faces"] == N
    table = pq.read_table(tmp_path / STABILITY)
    assert table.schema.metadata == {b"sae_0": b"first", b"sae_1": b"second"}
    rows = [row for row in table.to_pylist() if row["sae"] == 0]
    assert [row["feature"] for row in rows] == list(range(WIDTH))
    # Axis 7 is dead in the first SAE, and axis 4, its last feature, in the second.
    for feature in (0, 1, 2, 3, 5, 6):
        assert rows[feature]["match_1"] == rows[feature]["correlation_match_1"] == ORDER.tolist().index(feature)
        assert rows[feature]["stability"] == pytest.approx(1)
        assert rows[feature]["correlation_1"] == rows[feature]["stability_correlation"] == pytest.approx(1)
    assert rows[4]["match_1"] == -1 and rows[4]["stability"] == 0
    assert np.isnan(rows[7]["stability"]) and np.isnan(rows[7]["stability_correlation"])
    assert metrics["cosine/found_again"] == pytest.approx(6 / 7) and metrics["cosine/pw_mcc"] == pytest.approx(6 / 7)
    assert metrics["correlation/found_again"] == pytest.approx(6 / 7)
    assert found.headline.startswith("85.7 % of the features are found again (cosine above 0.7)")


def test_stability_is_the_mean_over_the_other_saes(templates: TemplateSet, tmp_path: Path) -> None:
    turned = np.eye(WIDTH)
    turned[0] = [0.6, 0.8, 0, 0, 0, 0, 0, 0]
    saes = [compared(templates, axes, str(axes[0])) for axes in (np.eye(WIDTH), np.eye(WIDTH), turned)]
    found, _ = run(saes, tmp_path)
    assert found.stability(0)["stability"][:3] == pytest.approx([0.8, 1, 1])
    assert found.stability(2)["stability"][:3] == pytest.approx([0.6, 1, 1])
    assert [(pair.first, pair.second) for pair in found.pairs] == [(0, 1), (0, 2), (1, 2)]
    assert set(found.columns(1)) >= {"cosine_0", "cosine_2", "match_2", "correlation_match_0"}


def test_other_recognizers_are_compared_by_activation_on_the_same_faces(
    templates: TemplateSet, of_another: TemplateSet, tmp_path: Path
) -> None:
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0]
    saes = [compared(templates, np.eye(WIDTH), "one"), compared(of_another, rotation[ORDER], "other")]
    found, metrics = run(saes, tmp_path)
    assert metrics["n_faces"] == 240
    assert set(metrics) == {"n_faces", "across/correlation/mcc", "across/correlation/found_again"}
    assert metrics["across/correlation/found_again"] == pytest.approx(6 / 7)
    assert np.isnan(found.stability(0)["stability"]).all()
    assert found.stability(0)["stability_correlation"][:3] == pytest.approx(1, abs=1e-5)
    assert [path.name for path in write_figures(found, [templates, of_another], tmp_path)] == [
        "stability.png",
        "matches.png",
    ]


def test_the_untrained_saes_are_the_control(templates: TemplateSet, tmp_path: Path) -> None:
    torch.manual_seed(0)
    untrained = [new_sae("topk", WIDTH, 16, k=3).eval().requires_grad_(False) for _ in range(2)]
    saes = [compared(templates, np.eye(WIDTH), name, one) for name, one in zip("ab", untrained, strict=True)]
    found, metrics = run(saes, tmp_path)
    assert metrics["cosine/pw_mcc"] == pytest.approx(1) and 0.3 < metrics["initial/cosine/pw_mcc"] < 0.95
    assert "; untrained: " in found.headline
    assert pair_table(found)[0]["initial/cosine/pw_mcc"] == metrics["initial/cosine/pw_mcc"]
    saes[1] = compared(templates, np.eye(WIDTH), "b")
    assert not any(name.startswith("initial") for name in run(saes, tmp_path)[1])


def test_what_does_not_belong_together_is_refused_in_one_sentence(
    templates: TemplateSet, of_another: TemplateSet, tmp_path: Path, jpeg: bytes
) -> None:
    saes = [compared(templates, np.eye(WIDTH), "one"), compared(of_another, np.eye(WIDTH), "other")]
    saes[1] = Compared(name="other", sae=saes[1].sae, templates=templates)
    saes[1].sae.origin = Origin("sae: other", "other", of_another.origin.digest)
    with pytest.raises(UserError, match=r"^sae: other from recognizer other .* do not belong together; give one"):
        run(saes, tmp_path)
    assert run(saes, tmp_path, force=True)[1]["cosine/pw_mcc"] == pytest.approx(1)
    elsewhere = written(tmp_path / "set", X, list(range(160, 170)), jpeg, "one")
    with pytest.raises(UserError, match=r"^templates: .* have no image_id in common"):
        shared_rows([of_another, elsewhere], n_faces=1000)


def test_some_faces_are_the_same_people_in_every_set(templates: TemplateSet, of_another: TemplateSet) -> None:
    rows = shared_rows([templates, of_another], n_faces=100)
    assert 40 < len(rows[0]) < 130
    names = [[one.image_ids[row] for row in of] for one, of in zip((templates, of_another), rows, strict=True)]
    assert names[0] == names[1]
    people = {name.split("/")[0] for name in names[0]}
    assert len(shared_rows([templates], n_faces=100)[0]) >= len(names[0])
    assert len(people) < 60


def test_too_many_entries_are_refused(
    templates: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dense = new_sae("relu", WIDTH, 64).eval().requires_grad_(False)
    saes = [compared(templates, np.eye(WIDTH), name, dense) for name in "ab"]
    monkeypatch.setattr(stage, "MOST_ENTRIES", 2000)
    assert not run(saes, tmp_path)[0].initial
    assert "untrained SAE of a fires more than 2,000 features" in caplog.text
    monkeypatch.setattr(stage, "MOST_ENTRIES", 100)
    with pytest.raises(UserError, match="a fires more than 100 features on them; give fewer"):
        run(saes, tmp_path)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"saes": "one"}, "saes must name at least two SAEs, separated by commas; it is 'one'."),
        ({"saes": "a,b,c", "templates": "x,y"}, "templates must name one set, or one for each of the 3 SAEs"),
    ],
)
def test_names_that_do_not_fit_are_refused(values: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        CompareSettings(**values)


def test_the_curve_meets_the_share_found_again_of_the_headline() -> None:
    nowhere = np.arange(4)
    one, other = (
        Matches(first=nowhere, second=nowhere, similarity=np.array(similarity), n=n, left_out=0.0)
        for similarity, n in (([0.1, 0.7, 0.8, 0.9], 8), ([0.3, 0.3, 0.3, 0.75], 4))
    )
    assert found_at(np.array([0.0, 0.7, 0.85, 1.0]), [one, other]).tolist() == [0.75, 0.25, 0.0625, 0]
    assert found_at(np.array([FOUND_AGAIN]), [one, other]) == np.mean([one.found_again, other.found_again])
