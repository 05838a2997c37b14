import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fsae_mlflow.features.probes import SIZES, Probes, mean_difference, probes
from fsae_mlflow.sae.entries import Entries

N_PEOPLE, N_FACES = 60, 8
PEOPLE = np.random.default_rng(0).permutation(np.repeat(np.arange(N_PEOPLE), N_FACES))
CONFIRM = PEOPLE >= N_PEOPLE // 2
K = {size: column for column, size in enumerate(SIZES)}


def probed(features: np.ndarray, **labels: np.ndarray) -> Probes:
    return probes(Entries.of(features), labels, people=PEOPLE, confirm=CONFIRM)


def noise(n_features: int, *, density: float = 0.4, seed: int = 0) -> np.ndarray:
    numbers = np.random.default_rng(seed)
    shape = len(PEOPLE), n_features
    return numbers.exponential(size=shape) * (numbers.random(shape) < density)


def some_labels(seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(PEOPLE)) < 0.4).astype(np.float64)


def by_hand(features: np.ndarray, labels: np.ndarray, k: int) -> tuple[float, float]:
    """AUROC and precision of a probe, the slow way."""
    here = CONFIRM[~np.isnan(labels)]
    x, has, people = features[~np.isnan(labels)], labels[~np.isnan(labels)] > 0, PEOPLE[~np.isnan(labels)]
    groups = x[~here & has], x[~here & ~has]
    n = [len(group) for group in groups]
    squares = sum((len(group) - 1) * group.var(axis=0, ddof=1) for group in groups)
    effect = (groups[0].mean(axis=0) - groups[1].mean(axis=0)) / np.sqrt(squares / (sum(n) - 2))
    chosen = np.argsort(-np.abs(effect))[:k]
    probe = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[~here][:, chosen], has[~here])
    score = probe.decision_function(x[here][:, chosen])
    taken: list[int] = []
    for row in np.argsort(-score, kind="stable").tolist():
        of_person = sum(people[here][other] == people[here][row] for other in taken)
        if of_person < 3 and len(taken) < 20:
            taken.append(row)
    return float(roc_auc_score(has[here], score)), float(has[here][taken].mean())


def test_probes_are_logistic_regressions_on_the_features_of_the_largest_effect() -> None:
    glasses, hat = some_labels(1), some_labels(2)
    hat[np.random.default_rng(3).random(len(hat)) < 0.2] = np.nan
    features = noise(30)
    # Faces of one person fire alike, so that the places of one person run out.
    features[:, :8] += 0.7 * glasses[:, None] * np.random.default_rng(4).random((N_PEOPLE, 8))[PEOPLE] ** 4 * 5
    features[:, 8:12] += 0.5 * np.nan_to_num(hat)[:, None] * features[:, 8:12]
    features = features.astype(np.float32)
    found = probed(features, glasses=glasses, hat=hat)
    assert found.attributes == ["glasses", "hat"]
    assert found.base == pytest.approx([glasses[CONFIRM].mean(), np.nanmean(hat[CONFIRM])])
    for row, labels in enumerate((glasses, hat)):
        for k in SIZES:
            auroc, precision = by_hand(features.astype(np.float64), labels, k)
            assert found.auroc[row, K[k]] == pytest.approx(auroc, abs=1e-6), k
            assert found.precision[row, K[k]] == pytest.approx(precision), k
    assert found.metrics["probes/auroc_k5"] == pytest.approx(found.auroc[:, K[5]].mean())
    assert found.metrics["probes/precision_k100"] == pytest.approx(found.precision[:, K[100]].mean())
    assert found.metrics["probes/n_attributes"] == 2


def test_an_attribute_of_one_feature_is_read_and_chance_is_not() -> None:
    features, glasses = noise(50), some_labels(1)
    features[:, 7] = 2 * glasses
    found = probed(features, glasses=glasses, chance=some_labels(5))
    assert (found.auroc[0, : K[20]] > 0.99).all() and (found.precision[0] == 1).all()
    assert np.abs(found.auroc[1] - 0.5).max() < 0.12


def test_probes_learn_from_discovery_people_only() -> None:
    features, glasses = noise(20), some_labels(1)
    features[:, 3] = 2 * np.where(CONFIRM, 1 - glasses, glasses)
    found = probed(features, glasses=glasses)
    assert found.auroc[0, K[1]] == 0 and found.precision[0, K[1]] == 0


@pytest.mark.parametrize(("n_people", "chosen"), [(9, False), (10, True)])
def test_a_feature_of_few_people_is_not_chosen(n_people: int, chosen: bool) -> None:
    features, glasses = noise(5), some_labels(1)
    features[:, 3] = 2 * glasses * (CONFIRM | np.isin(PEOPLE, range(n_people)))
    found = probed(features, glasses=glasses).auroc[0] > 0.9
    assert found.all() == found.any() == chosen


@pytest.mark.parametrize("side", [False, True])
@pytest.mark.parametrize("value", [0, 1])
def test_an_attribute_of_few_people_is_not_probed(side: bool, value: int) -> None:
    person = PEOPLE - side * N_PEOPLE // 2
    few, enough = (np.where((side == CONFIRM) & (person >= n), 1.0 - value, some_labels(1)) for n in (9, 10))
    few[PEOPLE == 20], enough[PEOPLE == 20] = np.nan, np.nan
    assert probed(noise(5), few=few, enough=enough).attributes == ["enough"]


def test_without_attributes_or_features_there_are_no_metrics() -> None:
    assert probed(noise(5)).metrics == {}
    nothing = probed(np.zeros((len(PEOPLE), 5)), glasses=some_labels(1))
    assert nothing.attributes == [] and nothing.auroc.shape == (0, len(SIZES)) and nothing.metrics == {}


def test_a_feature_that_does_not_vary_on_discovery_people_is_harmless() -> None:
    features, glasses = noise(3), some_labels(1)
    features[:, 1] = 1
    assert np.isfinite(probed(features, glasses=glasses).auroc).all()


@given(st.integers(0, 99), st.integers(3, 40), st.floats(0.1, 1.0))
def test_mean_difference_is_cohens_d(seed: int, n: int, density: float) -> None:
    numbers = np.random.default_rng(seed)
    features = (numbers.exponential(size=(n, 4)) * (numbers.random((n, 4)) < density)).astype(np.float32)
    features[:, 3] = 0
    has = np.arange(n) < numbers.integers(1, n)
    groups = features[has].astype(np.float64), features[~has].astype(np.float64)
    pooled = np.sqrt(sum(len(group) * group.var(axis=0) for group in groups) / (n - 2))
    difference = groups[0].mean(axis=0) - groups[1].mean(axis=0)
    found = mean_difference(Entries.of(features), has)
    assert found[3] == 0
    varies = pooled > 1e-6
    assert found[varies] == pytest.approx(difference[varies] / pooled[varies], rel=1e-4, abs=1e-6)
