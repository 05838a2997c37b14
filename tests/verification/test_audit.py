"""The audit: pairs of known error rates, and features that wrong decisions are made to have in common."""

import csv
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.readings.sentences import kinds_of
from fsae_mlflow.report.verification.audit import AuditLine, Share, audit_figure, most_different
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.audit.fired import FiredFeatures, over_represented
from fsae_mlflow.verification.audit.groups import Decisions, Group, audit_groups
from fsae_mlflow.verification.audit.stage import audit
from fsae_mlflow.verification.audit.tables import Common, write_audit
from fsae_mlflow.verification.evaluation import evaluate
from fsae_mlflow.verification.pairs import RowPairs, make_pairs
from fsae_mlflow.verification.protocol import wilson_interval
from fsae_mlflow.verification.settings import EvaluateSettings
from tests.sae.making import firing_sae
from tests.template_sets import labeled_set

FAR = 0.1
HAS_IMPOSTORS, LACKS_IMPOSTORS = np.linspace(1, 2, 100), np.linspace(1.5, 2.5, 100)
# Of 200 impostors of the other fold 20 may be accepted, all of them with the attribute: below HAS_IMPOSTORS[20], 1.20.
# Alone, the group that has it may accept 10, below 1.10, and the one that lacks it 10, below 1.60.
HAS_GENUINE = np.repeat([0.5, 1.15, 3.0], [40, 5, 5])
LACKS_GENUINE = np.repeat([0.5, 1.4, 3.0], [30, 15, 5])


def hand_made(*, n_people: int = 30) -> tuple[np.ndarray, RowPairs, np.ndarray, np.ndarray]:
    """Distances, pairs, labels and people: two folds of the distances above, and genuine pairs of neither group."""
    parts = [
        (HAS_IMPOSTORS, False, (1, 1)),
        (LACKS_IMPOSTORS, False, (0, 0)),
        (HAS_GENUINE, True, (1, 1)),
        (LACKS_GENUINE, True, (0, 0)),
        (np.full(10, 3.0), True, (1, 0)),
        (np.full(10, 3.0), True, (1, np.nan)),
        (np.full(10, 3.0), True, (np.nan, np.nan)),
    ]
    distances = np.tile(np.concatenate([values for values, *_ in parts]), 2)
    genuine = np.tile(np.concatenate([np.full(len(values), truth) for values, truth, _ in parts]), 2)
    labels = np.tile(np.concatenate([np.tile(both, (len(values), 1)) for values, _, both in parts]), (2, 1))
    n = len(distances)
    pairs = RowPairs(
        first=np.arange(n), second=np.arange(n, 2 * n), genuine=genuine, fold=np.repeat([0, 1], n // 2).astype(np.int64)
    )
    return distances, pairs, labels.T.ravel(), np.arange(2 * n) % n_people


def groups_of(*, far: float = FAR, n_people: int = 30) -> list[Group]:
    distances, pairs, labels, people = hand_made(n_people=n_people)
    return audit_groups(distances, pairs, {"Hat": labels}, people, far=far)


def test_the_rates_of_a_hand_made_set() -> None:
    overall, has, lacks = groups_of()
    assert [one.name for one in (overall, has, lacks)] == ["all pairs", "Hat: yes", "Hat: no"]
    assert (overall.impostor.rate, overall.impostor.n) == (0.1, 400)
    assert (overall.genuine.n_wrong, overall.genuine.n) == (2 * (5 + 20 + 30), 260)
    assert (has.impostor.rate, has.impostor.n, has.genuine.rate, has.genuine.n) == (0.2, 200, 0.1, 100)
    assert (lacks.impostor.rate, lacks.impostor.n, lacks.genuine.rate, lacks.genuine.n) == (0, 200, 0.4, 100)
    assert has.impostor.interval == wilson_interval(40, 200)
    assert not has.remark and not lacks.remark


def test_the_threshold_of_a_group_equalizes_its_false_match_rate() -> None:
    overall, has, lacks = groups_of()
    assert (has.impostor_own.rate, lacks.impostor_own.rate) == (0.1, 0.1)
    assert (has.genuine_own.rate, lacks.genuine_own.rate) == (0.2, 0.1)
    assert (has.threshold, lacks.threshold) == (HAS_IMPOSTORS[10], LACKS_IMPOSTORS[10])
    assert overall.threshold == HAS_IMPOSTORS[20]
    assert overall.genuine_own == overall.genuine and overall.impostor_own == overall.impostor


def test_a_fold_does_not_choose_its_own_threshold() -> None:
    distances, pairs, _, _ = hand_made()
    every = np.ones(len(pairs), bool)
    before = Decisions.of(distances, pairs, every, FAR)
    nearer = np.where((pairs.fold == 0) & ~pairs.genuine, 0.1, distances)
    after = Decisions.of(nearer, pairs, every, FAR)
    in_first = pairs.fold == 0
    assert after.accepted[in_first & ~pairs.genuine].all()
    np.testing.assert_array_equal(after.accepted[in_first & pairs.genuine], before.accepted[in_first & pairs.genuine])
    assert not after.accepted[~in_first].any()


def test_groups_of_few_pairs_are_given_no_rate() -> None:
    _, has, _ = groups_of(far=0.05)
    assert has.has_fmr and has.has_own  # 200 impostor pairs, and 10 errors to be expected
    _, has, _ = groups_of(far=0.0499)
    assert not has.has_fmr and not has.has_own and has.has_fnmr and has.remark == "too few impostor pairs"
    distances, pairs, labels, people = hand_made()
    labels[pairs.first[np.flatnonzero(pairs.genuine & (labels[pairs.first] == 1))[0]]] = np.nan
    _, has, lacks = audit_groups(distances, pairs, {"Hat": labels}, people, far=FAR)
    assert has.genuine.n == 99 and not has.has_fnmr and has.remark == "too few genuine pairs"
    assert lacks.genuine.n == 100 and lacks.has_fnmr


def test_groups_of_few_people_are_given_no_rate() -> None:
    _, has, lacks = groups_of(n_people=19)
    assert has.n_people == 19 and not has.has_fmr and not has.has_fnmr and has.remark == "too few people"
    _, has, _ = groups_of(n_people=20)
    assert has.n_people == 20 and has.has_fmr and has.has_fnmr
    assert groups_of(n_people=19)[0].has_fmr and not lacks.has_own


def test_a_rate_that_no_threshold_can_show_is_not_given() -> None:
    groups = groups_of(far=0.004)  # the other fold has 200 impostor pairs
    assert not any(one.decided or one.has_fmr or one.has_fnmr or one.has_own for one in groups)
    assert groups_of(far=0.005)[0].decided


def test_what_is_not_given_is_not_written(tmp_path: Path) -> None:
    write_audit(groups_of(far=0.0499), [], None, tmp_path)
    with (tmp_path / "audit.csv").open() as file:
        overall, has, _ = csv.DictReader(file)
    assert (has["fmr"], has["fmr_low"], has["own_threshold"], has["fnmr_at_own"]) == ("", "", "", "")
    assert (has["n_impostor"], has["fnmr"], has["remark"]) == ("200", "0.2", "too few impostor pairs")
    assert float(overall["fmr"]) == pytest.approx(0.0499, abs=0.01) and overall["has"] == ""
    text = (tmp_path / "audit.md").read_text()
    assert "| Hat: yes | 30 | 200 | too few pairs |  | 100 | 0.2000 |" in text and "give more pairs" not in text
    write_audit(groups_of(far=0.004), [], None, tmp_path)
    text = (tmp_path / "audit.md").read_text()
    assert "needs at least 2,500 impostor pairs, and here are 400: give more pairs" in text and "nan" not in text


N_ROWS, N_FEATURES, N_PAIRS = 60, 12, 400


def fired_pairs(seed: int = 0) -> tuple[FiredFeatures, np.ndarray, RowPairs, np.ndarray]:
    """Random features and pairs. Feature 11 never fires. Wrong decisions have feature 3 in common: both faces fire it
    where they are of different people, exactly one where they are of one person.
    """
    generator = np.random.default_rng(seed)
    fires = generator.random((N_ROWS, N_FEATURES)) < 0.3
    fires[:, 11] = False
    first = generator.integers(0, N_ROWS // 2, N_PAIRS)
    second = generator.integers(N_ROWS // 2, N_ROWS, N_PAIRS)
    genuine = np.arange(N_PAIRS) % 2 == 0
    both, one = fires[first, 3] & fires[second, 3], fires[first, 3] ^ fires[second, 3]
    wrong = np.where(genuine, one, both) & (generator.random(N_PAIRS) < 0.6)
    # Rows of the template set are not those of the entries: only every second row is in a pair.
    pairs = RowPairs(first=2 * first, second=2 * second, genuine=genuine, fold=np.zeros(N_PAIRS, np.int64))
    assert len(pairs.rows) == N_ROWS
    kinds = np.array(["Hat", "pose", "Hat", "Hat", "unread"] + ["unread"] * 7, dtype=object)
    sentences = np.array([f"meaning {feature}" for feature in range(N_FEATURES)])
    fired = FiredFeatures(entries=Entries.of(fires.astype(np.float32)), sentences=sentences, kinds=kinds)
    return fired, fires, pairs, wrong


@pytest.mark.parametrize("genuine", [False, True])
def test_what_wrong_decisions_have_in_common_is_scipys(genuine: bool) -> None:
    fired, fires, pairs, wrong = fired_pairs()
    features, readings = over_represented(fired, pairs, wrong, genuine=genuine)
    among = pairs.genuine == genuine
    a, b = fires[pairs.first[among] // 2], fires[pairs.second[among] // 2]
    counts = a ^ b if genuine else a & b
    wrong = wrong[among]
    assert features.names.tolist() == list(range(11))
    in_wrong, in_all = counts[wrong].sum(axis=0)[:11], counts.sum(axis=0)[:11]
    expected = stats.hypergeom.sf(in_wrong - 1, len(wrong), in_all, wrong.sum())
    np.testing.assert_allclose(features.p, expected, rtol=1e-9)
    np.testing.assert_allclose(features.q, stats.false_discovery_control(expected))
    np.testing.assert_allclose(features.in_wrong, counts[wrong].mean(axis=0)[:11])
    np.testing.assert_allclose(features.in_others, counts[~wrong].mean(axis=0)[:11])
    np.testing.assert_allclose(features.lift, features.in_wrong / features.in_others)
    assert features.order[0] == 3 and features.q[3] < 1e-6 and (np.delete(features.q, 3) > 0.05).all()

    assert readings.names.tolist() == ["Hat", "pose"]
    numbers = counts[:, [0, 2, 3]].sum(axis=1)
    assert readings.in_wrong[0] == pytest.approx(numbers[wrong].mean())
    expected = stats.mannwhitneyu(numbers[wrong], numbers[~wrong], alternative="greater", method="asymptotic").pvalue
    assert readings.p[0] == pytest.approx(expected) and readings.p[0] < 1e-3 < readings.p[1]


def test_a_dictionary_without_readings_has_none_in_common() -> None:
    fired, _, pairs, wrong = fired_pairs()
    unread = dataclasses.replace(fired, kinds=np.full(N_FEATURES, "unread", dtype=object))
    features, readings = over_represented(unread, pairs, wrong, genuine=True)
    assert len(features.names) == 11 and len(readings.names) == 0


def test_a_feature_has_the_kind_that_is_read_first() -> None:
    columns = {
        "reading": np.array(["Hat.", "One person.", "unread"], dtype=object),
        "confirmed": np.array([True, True, False]),
        "attribute_confirmed": np.array([True, False, False]),
        "attribute": np.array(["Hat", "", ""], dtype=object),
        **{f"attribute_{name}": np.zeros(3) for name in ("share", "base", "p", "q")},
        "identity_confirmed": np.array([True, True, False]),
        **{name: np.zeros(3) for name in ("purity", "identity_base", "identity_p", "identity_q")},
    }
    assert kinds_of(columns).tolist() == ["Hat", "identity", "unread"]


def test_the_strongest_are_written_and_too_few_errors_said(tmp_path: Path) -> None:
    fired, _, pairs, wrong = fired_pairs()
    overall = groups_of()[0]
    found = over_represented(fired, pairs, wrong, genuine=False)
    common = [
        Common(genuine=False, errors=overall.impostor, found=found),
        Common(genuine=True, errors=dataclasses.replace(overall.genuine, n_wrong=9), found=None),
    ]
    written = write_audit(groups_of(), common, fired, tmp_path)
    assert [path.name for path in written] == ["audit.md", "audit.csv", "audit_features.csv", "audit_readings.csv"]
    text = (tmp_path / "audit.md").read_text()
    assert "## What false matches have in common" in text and "| 3 | meaning 3 |" in text and "| Hat | 3 |" in text
    assert "There are 9 among 260 pairs: too few errors" in text
    with (tmp_path / "audit_features.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 11 and (lines[0]["error"], lines[0]["feature"]) == ("false match", "3")
    assert float(lines[0]["lift"]) == found[0].lift[3]


def is_drawn(path: Path) -> bool:
    with Image.open(path) as image:
        return image.format == "PNG" and len(np.unique(np.asarray(image.convert("L")))) > 20


def test_attributes_that_differ_most_are_drawn_first(tmp_path: Path) -> None:
    def line(name: str, fmr: float | str, fnmr: float | str) -> AuditLine:
        one, other = (rate if isinstance(rate, str) else Share(rate, 0.9 * rate, 1.1 * rate) for rate in (fmr, fnmr))
        return AuditLine(attribute=name, fmr=(one, Share(0.01, 0.005, 0.015)), fnmr=(other, "too few pairs"))

    lines = [line("near", 0.011, 0.05), line("far", 0.01, 0.2), line("unknown", "too few pairs", "too few people")]
    assert [round(one.distance(0.01, 0.05), 6) for one in lines] == [0.1, 3.0, 0.0]
    unknown = AuditLine(attribute="", fmr=("too few pairs",) * 2, fnmr=("too few pairs",) * 2)
    assert unknown.distance(0.01, 0.05) == -1
    order = [one.attribute for one in most_different([unknown, *lines] * 5, fmr=0.01, fnmr=0.05)]
    assert order == ["far"] * 5 + ["near"] * 5 + ["unknown"] * 5
    assert is_drawn(audit_figure([*lines, unknown], tmp_path / "audit.png", fmr=0.01, fnmr=0.05, far=0.01))
    assert is_drawn(audit_figure([unknown], tmp_path / "none.png", fmr=math.nan, fnmr=math.nan, far=0.01))
    assert is_drawn(audit_figure(lines * 8, tmp_path / "many.png", fmr=0.01, fnmr=0.0, far=0.01))


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory, jpeg: bytes) -> TemplateSet:
    return labeled_set(tmp_path_factory.mktemp("labeled"), jpeg)


SETTINGS = EvaluateSettings(folds=2, pairs_per_fold=300, device="cpu", far=0.1)


def test_a_sets_own_attributes_are_audited(labeled: TemplateSet, tmp_path: Path) -> None:
    found = evaluate(SETTINGS, templates=labeled, sae=None, output=tmp_path)
    assert {"audit.csv", "audit.md", "audit.png"} <= {path.name for path in found.files}
    assert "| glasses: no |" in (tmp_path / "audit.md").read_text()
    assert found.metrics["audit/n_groups"] == 2 and found.metrics["audit/fmr"] == pytest.approx(0.1, abs=0.03)
    rates = [one.impostor.rate for one in found.parts[0].groups[1:] if one.has_fmr]
    assert found.metrics["audit/largest_fmr"] == max(rates)


@pytest.mark.parametrize("n_wrong", [9, 10])
def test_features_are_counted_in_wrong_decisions(labeled: TemplateSet, tmp_path: Path, n_wrong: int) -> None:
    sae = firing_sae("gated", torch.from_numpy(labeled.templates), 12, density=0.4).eval().requires_grad_(False)
    pairs = make_pairs(labeled.image_ids, labeled.identities, folds=2, pairs_per_fold=100)
    # Impostor pairs lie at 1 to 2, so that those below about 1.1 are accepted; all but some genuine ones lie below.
    distances = np.full(len(pairs), 0.5)
    distances[~pairs.genuine] = np.random.default_rng(0).uniform(1, 2, 200)
    distances[np.flatnonzero(pairs.genuine)[:n_wrong]] = 3.0
    readings = {"reading": np.full(12, "unread", dtype=object), "confirmed": np.zeros(12, bool)}
    audit(SETTINGS, distances, pairs, labeled, tmp_path, sae=sae, readings=readings)

    accepted = Decisions.of(distances, pairs, np.ones(len(pairs), bool), SETTINGS.far).accepted
    fires = sae.encode(torch.from_numpy(labeled.templates)).numpy() > 0
    both, one = (combined(fires[pairs.first], fires[pairs.second]) for combined in (np.logical_and, np.logical_xor))
    with (tmp_path / "audit_features.csv").open() as file:
        lines = list(csv.DictReader(file))
    expected = {"false match": both[~pairs.genuine & accepted].mean(axis=0)}
    if n_wrong == 10:
        expected["false non-match"] = one[pairs.genuine & ~accepted].mean(axis=0)
    assert {line["error"] for line in lines} == expected.keys()
    for line in lines:
        assert float(line["in_wrong"]) == pytest.approx(expected[line["error"]][int(line["feature"])])
    said = "There are 9 among 200 pairs: too few errors" in (tmp_path / "audit.md").read_text()
    assert said == (n_wrong == 9)


def test_labels_of_few_people_are_too_few_rather_than_refused(labeled: TemplateSet, tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("path,Hat\np00/000.jpg,1\np00/001.jpg,1\np01/006.jpg,0\np01/007.jpg,0\n")
    few = dataclasses.replace(SETTINGS, attributes=str(tmp_path / "few.csv"))
    found = evaluate(few, templates=labeled, sae=None, output=tmp_path)
    text = (tmp_path / "audit.md").read_text()
    assert text.count("too few people") == 4 and "| glasses: yes |" in text
    assert found.metrics["audit/n_groups"] == 4


def test_labels_that_make_no_groups_are_refused(template_set: TemplateSet, tmp_path: Path) -> None:
    (tmp_path / "age.csv").write_text("path,age\np00/000.jpg,31\np01/010.jpg,45\np02/020.jpg,22\n")
    numbers = dataclasses.replace(SETTINGS, attributes=str(tmp_path / "age.csv"))
    with pytest.raises(UserError, match=r"age.csv has numbers, but no column of 0 and 1"):
        evaluate(numbers, templates=template_set, sae=None, output=tmp_path)
    assert evaluate(SETTINGS, templates=template_set, sae=None, output=tmp_path).parts == []


@pytest.mark.parametrize("far", [0.0, 1.0])
def test_a_false_accept_rate_is_between_0_and_1(far: float) -> None:
    with pytest.raises(UserError, match="far must be"):
        EvaluateSettings(far=far)
