import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsae_mlflow.features.activity import survey as activity_survey
from fsae_mlflow.features.activity.summary import QUANTILES
from fsae_mlflow.features.activity.survey import Survey, encoded, survey
from fsae_mlflow.metrics import Fidelity
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.sae.saved import save_sae
from fsae_mlflow.sae.sparse import sparse_encoder
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import new_sae
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


def some_sae(d_sae: int = 24) -> GatedSAE:
    torch.manual_seed(0)
    return GatedSAE(6, d_sae, GatedSettings()).eval().requires_grad_(False)


def some_templates(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32)


def write_set(folder: Path, templates: np.ndarray, people: list[int], *, shard_rows: int) -> TemplateSet:
    with TemplateWriter(folder, width=templates.shape[1], metadata={}, shard_rows=shard_rows) as writer:
        rows = [face_row(f"{person}/{row}.png", templates[row], b"") for row, person in enumerate(people)]
        writer.write([dataclasses.replace(row, identity=row.image_id.split("/")[0]) for row in rows])
    return TemplateSet.open(folder)


# The arrays of sampled faces, whose order says nothing.
SAMPLED = ("list9", "list10", "list11")


def assert_equal(one: Survey, other: Survey) -> None:
    mine, theirs = one.state(), other.state()
    assert mine.keys() == theirs.keys()
    for name in mine:
        if name.startswith("fidelity"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-9, abs=1e-9)
        elif name not in SAMPLED:
            np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
    for mine, theirs in zip(vars(one.activity.sampled).values(), vars(other.activity.sampled).values(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_survey_counts_what_a_hand_set_sae_fires(batch_size: int) -> None:
    surveyed = survey(hand_set_sae(), TEMPLATES, batch_size=batch_size)
    found = surveyed.activity
    assert found.counts.tolist() == [3, 1, 2, 0]
    assert found.density.tolist() == [0.75, 0.25, 0.5, 0]
    assert found.maxima.tolist() == [3, 1, 2, 0]
    assert found.mean[:3].tolist() == [2, 1, 1.5]
    assert found.std[:3] == pytest.approx([np.std([1, 2, 3]), 0, 0.5])
    assert np.isnan(found.mean[3])
    assert np.concatenate(surveyed.l0s).tolist() == [1, 2, 2, 1]
    assert found.mean_norm == pytest.approx(np.linalg.norm(TEMPLATES, axis=1).mean())


def test_mean_l0_is_the_sum_of_densities() -> None:
    sae, templates = some_sae(), some_templates(37)
    found = survey(sae, templates, batch_size=10).activity
    fired = [int((sae.encode(template[None]) > 0).sum()) for template in torch.from_numpy(templates)]
    assert found.l0 == pytest.approx(np.mean(fired), rel=1e-12)
    assert found.density.sum() == pytest.approx(found.l0, rel=1e-12)


def test_fidelity_is_that_of_the_reconstruction() -> None:
    sae, x = some_sae(), torch.from_numpy(some_templates(50))
    x_hat = sae.features(x) @ sae.W_dec + sae.b_dec
    assert survey(sae, x.numpy(), batch_size=7).activity.fvu == pytest.approx(Fidelity.of(x, x_hat).fvu, rel=1e-5)


def test_quantiles_are_close_to_the_exact_ones() -> None:
    sae, templates = some_sae(), some_templates(4000)
    features = sae.encode(torch.from_numpy(templates)).numpy().astype(np.float64)
    found = survey(sae, templates).activity
    exact = [[np.quantile(column[column > 0], q) for column in features.T] for q in QUANTILES]
    assert found.quantiles == pytest.approx(np.array(exact), rel=0.07)
    assert found.percentile == pytest.approx(np.quantile(features, 0.999, axis=0), rel=0.07)


def test_the_distribution_of_a_feature_is_close_to_the_exact_one() -> None:
    sae, templates = some_sae(), some_templates(4000)
    features = sae.encode(torch.from_numpy(templates)).numpy()
    values, shares = survey(sae, templates).activity.distribution(5)
    assert (values[0], values[-1], shares[-1]) == (0, features[:, 5].max(), 1)
    assert shares == pytest.approx([(features[:, 5] <= value).mean() for value in values], abs=0.02)


def test_a_dead_feature_has_no_quantile_of_its_own() -> None:
    found = survey(hand_set_sae(), TEMPLATES).activity
    assert np.isnan(found.quantiles[:, 3]).all()
    assert found.percentile[3] == 0
    assert not found.distribution(3)[0].any()


def test_templates_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\b3\b.*\b2\b"):
        survey(hand_set_sae(), np.zeros((1, 3), np.float32))


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        survey(hand_set_sae(), np.zeros((0, 2), np.float32))


def test_a_template_set_is_read_shard_by_shard(tmp_path: Path) -> None:
    templates = some_templates(11)
    faces = write_set(tmp_path, templates, list(range(11)), shard_rows=4)
    batches = [batch.templates for batch in encoded(some_sae(), faces, batch_size=3)]
    assert [len(batch) for batch in batches] == [3, 1, 3, 1, 3]
    np.testing.assert_array_equal(np.concatenate(batches), templates)
    some = [(batch.first, len(batch.templates)) for batch in encoded(some_sae(), faces, batch_size=3, rows=slice(3, 9))]
    assert some == [(3, 1), (4, 3), (7, 1), (8, 1)]


def test_the_encoder_sees_templates_from_the_whole_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(activity_survey, "sparse_encoder", lambda sae, x: (seen.append(x), sparse_encoder(sae, x))[1])
    templates = some_templates(5000)
    assert len(list(encoded(some_sae(), templates, batch_size=1024))) == 5
    assert len(seen) == 1 and seen[0].tolist() == templates[::3].tolist()


@pytest.mark.parametrize(("shard_rows", "batch_size"), [(4, 3), (7, 1000), (100, 16)])
def test_shards_and_batches_of_any_size_give_the_same_survey(tmp_path: Path, shard_rows: int, batch_size: int) -> None:
    sae, people = some_sae(200), [row % 9 for row in range(90)]
    whole = write_set(tmp_path / "whole", some_templates(90), people, shard_rows=90)
    parts = write_set(tmp_path / "parts", some_templates(90), people, shard_rows=shard_rows)
    surveys = [
        survey(sae, faces, most=5, read_faces=40, batch_size=size) for faces, size in ((whole, 90), (parts, batch_size))
    ]
    assert_equal(*surveys)
    assert 0 < len(surveys[0].read[0]) < 90


@pytest.mark.parametrize("cuts", [[30], [1, 2, 50]])
def test_surveys_of_consecutive_parts_merge_to_that_of_the_whole(cuts: list[int]) -> None:
    sae, templates = some_sae(), some_templates(80)
    people = (np.arange(80) % 7).astype(np.uint64)
    merged, whole = Survey(24, 4, read_below=3), Survey(24, 4, read_below=3)
    whole.add(Entries.of(sae.encode(torch.from_numpy(templates)).numpy()), people, first=0)
    first = 0
    for rows in np.split(np.arange(80), cuts):
        part = Survey(24, 4, read_below=3)
        features = sae.encode(torch.from_numpy(templates[rows])).numpy()
        part.add(Entries.of(np.ascontiguousarray(features)), people[rows], first=first)
        merged.merge(Survey.of(part.state()))
        first += len(rows)
    whole_state = whole.state()
    for name, array in merged.state().items():
        if name == "values":  # a product of other sizes rounds otherwise
            np.testing.assert_allclose(array, whole_state[name], rtol=1e-4)
        elif "list" not in name:
            np.testing.assert_array_equal(array, whole_state[name], err_msg=name)
    for lists in ("top", "sampled"):
        mine, theirs = getattr(merged.activity, lists), getattr(whole.activity, lists)
        np.testing.assert_array_equal(mine.rows, theirs.rows)


@given(
    values=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    people=st.integers(1, 5),
    most=st.integers(1, 6),
    batch_size=st.integers(1, 20),
)
def test_top_faces_equal_a_full_sort(values: list[int], people: int, most: int, batch_size: int) -> None:
    activations = np.array(values, np.float32)
    person = np.arange(len(values)) % people
    found = Survey(1, most)
    for first in range(0, len(values), batch_size):
        rows = slice(first, first + batch_size)
        found.add(Entries.of(activations[rows, None]), person[rows].astype(np.uint64), first=first)
    expected, taken = [], [0] * people
    for row in np.argsort(-activations, kind="stable"):
        if activations[row] > 0 and taken[person[row]] < 3 and len(expected) < most:
            expected.append(int(row))
            taken[person[row]] += 1
    rows, kept = found.activity.top_of(0)
    assert rows.tolist() == expected
    assert kept.tolist() == activations[expected].tolist()


def test_sampled_faces_fire_and_are_drawn_from_the_whole_range() -> None:
    activations = np.arange(1, 5001, dtype=np.float32)
    found = Survey(1, 1)
    found.add(Entries.of(activations[:, None]), np.arange(5000).astype(np.uint64), first=0)
    drawn = found.activity.sampled
    values, rows = drawn.activations[0], drawn.rows[0]
    assert drawn.n[0] == 32
    np.testing.assert_array_equal(values, activations[rows])
    assert (np.diff(values) < 0).all()
    assert 1800 < values.mean() < 3200


@pytest.mark.parametrize("feature", [-1, 24])
def test_an_unknown_feature_is_refused(feature: int) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 23; it is {feature}"):
        survey(some_sae(), some_templates(3)).activity.top_of(feature)


RANKS = """
import sys
import numpy as np
from fsae_mlflow.features.activity.survey import survey
from fsae_mlflow.machine.ranks import connected_ranks
from fsae_mlflow.sae.saved import load_sae
from fsae_mlflow.templates.set import TemplateSet

sae, templates, out = sys.argv[1:]
with connected_ranks() as ranks:
    found = survey(load_sae(sae), TemplateSet.open(templates), most=5, read_faces=50, batch_size=16, ranks=ranks)
    if ranks.leads:
        np.savez(out, **found.state())
"""


def test_two_processes_give_the_same_survey_as_one(tmp_path: Path) -> None:
    sae = new_sae("gated", 6, 100)
    save_sae(sae, tmp_path / "sae", settings={}, templates={})
    faces = write_set(tmp_path / "set", some_templates(90), [row % 9 for row in range(90)], shard_rows=25)
    (tmp_path / "ranks.py").write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    arguments = [tmp_path / "ranks.py", tmp_path / "sae", faces.folder, tmp_path / "two.npz"]
    subprocess.run([*command, *map(str, arguments)], check=True, timeout=300, cwd=Path(__file__).parents[3])
    assert_equal(
        Survey.of(dict(np.load(tmp_path / "two.npz"))), survey(sae, faces, most=5, read_faces=50, batch_size=90)
    )
