import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fsae_mlflow.features.readings.judgments import PROPERTIES
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.ablation import measurement
from fsae_mlflow.verification.ablation.measurement import HEADER, RATES, Changes, Verifier, ablate
from fsae_mlflow.verification.decoding import decode_masked
from fsae_mlflow.verification.pairs import RowPairs
from fsae_mlflow.verification.protocol import equal_error_rate, squared_distances, tar_at_far
from tests.template_sets import TemplateWriter, face_row

D_IN, D_SAE, N_PAIRS, N_FOLDS = 6, 14, 400, 4


@pytest.fixture(scope="module")
def templates() -> np.ndarray:
    """Pictures of 40 people, three of each."""
    numbers = np.random.default_rng(0)
    return (
        (numbers.normal(size=(40, 1, D_IN)) + 0.4 * numbers.normal(size=(40, 3, D_IN)))
        .reshape(-1, D_IN)
        .astype(np.float32)
    )


@pytest.fixture(scope="module")
def pairs() -> RowPairs:
    """A hundred pairs a fold, half of them genuine; folds share no people; every third picture is in no pair."""
    numbers, first, second = np.random.default_rng(1), [], []
    for fold in range(N_FOLDS):
        people = 10 * fold + numbers.integers(10, size=(N_PAIRS // N_FOLDS, 2))
        genuine = np.arange(len(people)) % 2 == 0
        people[genuine, 1] = people[genuine, 0]
        people[~genuine, 1] = np.where(
            people[~genuine, 0] == people[~genuine, 1], 10 * fold + (people[~genuine, 1] + 1) % 10, people[~genuine, 1]
        )
        pictures = numbers.permuted(np.tile([0, 1], (len(people), 1)), axis=1)
        first.append(3 * people[:, 0] + pictures[:, 0])
        second.append(3 * people[:, 1] + pictures[:, 1])
    return RowPairs(
        first=np.concatenate(first),
        second=np.concatenate(second),
        genuine=np.tile(np.arange(N_PAIRS // N_FOLDS) % 2 == 0, N_FOLDS),
        fold=np.repeat(np.arange(N_FOLDS), N_PAIRS // N_FOLDS),
    )


def hand_set(*, normalize: bool) -> SparseAutoencoder:
    """Unit axes in both directions, two oblique features, and one that never fires; with scale, center and b_dec."""
    sae = GatedSAE(D_IN, D_SAE, GatedSettings(), normalize=normalize, scale=1.7).eval().requires_grad_(False)
    oblique = torch.tensor([[1.0, 1, 0, 0, 0, 0], [0, 1, -2, 0, 1, 0]])
    directions = torch.cat([torch.eye(D_IN), -torch.eye(D_IN), oblique])[:D_SAE]
    sae.W_enc.copy_(directions)
    sae.W_dec.copy_(directions * torch.linspace(0.5, 1.5, D_SAE)[:, None])
    sae.b_dec.copy_(torch.linspace(-0.2, 0.3, D_IN))
    sae.center.copy_(torch.linspace(0.1, -0.1, D_IN))
    sae.b_gate[3], sae.b_mag[3] = -100, -100
    sae.b_gate[5], sae.b_mag[5] = -1.0, -1.0
    return sae


def by_hand(x: np.ndarray, pairs: RowPairs) -> np.ndarray:
    """The three rates of all pairs and of all but each fold, by protocol.py."""
    return rates_of(squared_distances(x[pairs.first], x[pairs.second]), pairs)


def rates_of(distances: np.ndarray, pairs: RowPairs) -> np.ndarray:
    kept = [np.ones(len(pairs), dtype=bool), *(pairs.fold != fold for fold in range(pairs.n_folds))]
    return np.array(
        [[tar_at_far(distances[rows], pairs.genuine[rows], far) for rows in kept] for far in measurement.FARS]
        + [[equal_error_rate(distances[rows], pairs.genuine[rows]) for rows in kept]]
    )


@pytest.mark.parametrize(("normalize", "fars"), [(False, (0.05, 1e-2)), (True, (1e-2, 1e-3))])
def test_leaving_out_each_feature_is_decoding_anew_without_it(
    templates: np.ndarray,
    pairs: RowPairs,
    monkeypatch: pytest.MonkeyPatch,
    normalize: bool,
    fars: tuple[float, float],
) -> None:
    monkeypatch.setattr(measurement, "FARS", fars)
    sae = hand_set(normalize=normalize)
    verifier = Verifier(sae, templates[pairs.rows], pairs, batch_size=50)
    n_pairs, found = verifier.without_each()
    every = np.arange(D_SAE)
    masks = {"all": every >= 0} | {str(feature): every != feature for feature in every}
    decoded = decode_masked(sae, templates, masks, batch_size=50)
    np.testing.assert_allclose(verifier.whole, by_hand(decoded["all"].templates, pairs), atol=1e-12)
    fires = (sae.encode(torch.from_numpy(templates)) > 0).numpy()
    changed = False
    for feature in every.tolist():
        left = decoded[str(feature)].templates
        np.testing.assert_allclose(found[feature], by_hand(left, pairs), atol=1e-12, err_msg=str(feature))
        assert n_pairs[feature] == (fires[pairs.first, feature] | fires[pairs.second, feature]).sum()
        changed |= bool((np.nan_to_num(found[feature] - verifier.whole) != 0).any())
    assert changed and n_pairs[3] == 0 and np.isnan(found[:, 1]).all() == (fars[1] == 1e-3)
    np.testing.assert_array_equal(found[3], verifier.whole)


def test_leaving_out_a_group_is_decoding_anew_without_it(templates: np.ndarray, pairs: RowPairs) -> None:
    sae, group = hand_set(normalize=False), np.isin(np.arange(D_SAE), (0, 7, 12))
    verifier = Verifier(sae, templates[pairs.rows], pairs, batch_size=50)
    n_pairs, found = verifier.without(group)
    left = decode_masked(sae, templates, {"left": ~group}, batch_size=50)["left"].templates
    np.testing.assert_allclose(found, by_hand(left, pairs), atol=1e-12)
    fires = (sae.encode(torch.from_numpy(templates)) > 0).numpy()[:, group].any(axis=1)
    assert n_pairs == (fires[pairs.first] | fires[pairs.second]).sum() < len(pairs)


def test_a_template_without_its_only_feature_is_zero_as_in_the_protocol(pairs: RowPairs) -> None:
    sae = GatedSAE(D_IN, D_IN, GatedSettings()).eval().requires_grad_(False)
    sae.W_enc.copy_(torch.eye(D_IN))
    sae.W_dec.copy_(torch.linalg.qr(torch.randn(D_IN, D_IN, generator=torch.Generator().manual_seed(0))).Q)
    numbers = np.random.default_rng(2)
    x = (numbers.uniform(0.3, 3, size=(120, 1)) * np.eye(D_IN)[numbers.integers(D_IN, size=120)]).astype(np.float32)
    x[::7] += 0.3 * np.abs(numbers.normal(size=(len(x[::7]), D_IN))).astype(np.float32)
    verifier = Verifier(sae, x[pairs.rows], pairs, batch_size=50)
    _, found = verifier.without_each()
    for feature in range(D_IN):
        left = decode_masked(sae, x, {"left": np.arange(D_IN) != feature}, batch_size=50)["left"].templates
        assert (np.abs(left).sum(axis=1) < 1e-6).any()
        # Distances that are equal by construction differ in their last digits, which the order of pairs depends on.
        np.testing.assert_allclose(found[feature, 2], by_hand(left, pairs)[2], atol=0.02)


@given(st.integers(0, 10_000), st.integers(0, 400))
@settings(max_examples=40, deadline=None)
def test_rates_are_those_of_the_protocol_also_where_distances_are_equal(seed: int, n_changed: int) -> None:
    numbers = np.random.default_rng(seed)
    genuine = numbers.random(400) < 0.5
    before, after = (numbers.normal(np.where(genuine, 1.0, 1.5), 0.3).round(1) for _ in range(2))
    changed = np.sort(numbers.permutation(400)[:n_changed])
    fold = numbers.integers(3, size=400)
    fold[:3] = range(3)
    pairs = RowPairs(first=np.arange(400), second=np.arange(400), genuine=genuine, fold=fold)
    verifier = object.__new__(Verifier)
    verifier.set_pairs(pairs, before)
    expected = np.where(np.isin(np.arange(400), changed), after, before)
    np.testing.assert_allclose(verifier.rates_with(changed, after[changed]), rates_of(expected, pairs), atol=1e-12)


def test_intervals_are_of_the_jackknife_over_folds() -> None:
    numbers = np.random.default_rng(0)
    found, whole = numbers.random((2, 3, 6)), numbers.random((3, 6))
    changes = Changes.of(np.array([4, 5]), found, whole)
    np.testing.assert_allclose(changes.change, found[:, :, 0] - whole[:, 0])
    without_fold = (found - whole)[1, 2, 1:]
    half = stats.t.ppf(0.975, 4) * np.sqrt(4 / 5 * ((without_fold - without_fold.mean()) ** 2).sum())
    assert changes.low[1, 2] == pytest.approx(changes.change[1, 2] - half)
    assert changes.high[1, 2] == pytest.approx(changes.change[1, 2] + half)


@pytest.fixture
def stored(templates: np.ndarray, tmp_path: Path) -> TemplateSet:
    with TemplateWriter(tmp_path / "templates", width=D_IN, metadata={}) as writer:
        writer.write(
            [face_row(f"p{row // 3:02d}/{row:03d}.png", template, b"") for row, template in enumerate(templates)]
        )
    return TemplateSet.open(writer.folder)


def columns() -> dict[str, np.ndarray]:
    """Readings: Smiling (features 0 and 7), a person (1), and nothing; feature 3 is dead."""
    smiling = np.isin(np.arange(D_SAE), (0, 7))
    names = {"attribute": np.where(smiling, "Smiling", ""), "attribute_confirmed": smiling}
    for name in ("share", "base", "p", "q", "rho"):
        names[f"attribute_{name}"] = np.full(D_SAE, 0.5)
    for name in ("identity_base", "identity_p", "identity_q", "purity"):
        names[name] = np.full(D_SAE, 0.5)
    for name in PROPERTIES:
        names |= {f"{name}_confirmed": np.zeros(D_SAE, bool), f"{name}_rho": np.zeros(D_SAE)}
    names["identity_confirmed"] = np.arange(D_SAE) == 1
    names["confirmed"] = smiling | names["identity_confirmed"]
    names["pose"] = np.full(D_SAE, "invariant")
    names["reading"] = np.where(np.arange(D_SAE) == 3, "dead", np.where(smiling, "Smiling", "unread"))
    return names


def test_features_and_readings_are_written(stored: TemplateSet, pairs: RowPairs, tmp_path: Path) -> None:
    sae = hand_set(normalize=False)
    found = ablate(columns(), sae=sae, templates=stored, pairs=pairs, output=tmp_path / "out")
    assert [path.name for path in found.files] == ["ablation.csv", "ablation_readings.csv", "ablation.png"]
    assert (found.names, found.sizes) == (["Smiling", "identity", "unread"], [2, 1, 10])
    with (tmp_path / "out" / "ablation.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["feature", "reading", "read_as", *HEADER] and len(lines) == D_SAE
    assert [lines[j]["read_as"] for j in (0, 1, 2, 3)] == ["Smiling", "identity", "unread", ""]
    with (tmp_path / "out" / "ablation_readings.csv").open() as file:
        readings = list(csv.DictReader(file))
    verifier = Verifier(sae, stored.templates_of(pairs.rows), pairs, batch_size=50)
    change = verifier.without(columns()["attribute"] == "Smiling")[1] - verifier.whole
    assert float(readings[0]["eer_change"]) == pytest.approx(change[2, 0])
    # The person is one feature: as a reading it changes what it changes alone.
    both = ([float(line[name]) for name in HEADER] for line in (readings[1], lines[1]))
    np.testing.assert_allclose(*both, atol=1e-12)
    assert found.metrics["ablation/Smiling/eer"] == pytest.approx(change[2, 0])
    assert found.metrics["ablation/features/eer_highest"] == max(float(line["eer_change"]) for line in lines)
    assert not any("1e-3" in name for name in found.metrics)


def test_without_readings_only_features_are_written(stored: TemplateSet, pairs: RowPairs, tmp_path: Path) -> None:
    found = ablate(None, sae=hand_set(normalize=False), templates=stored, pairs=pairs, output=tmp_path / "out")
    assert [path.name for path in found.files] == ["ablation.csv"] and found.names == []
    assert len(RATES) == 3 and {name.split("/")[1] for name in found.metrics} == {"features"}
