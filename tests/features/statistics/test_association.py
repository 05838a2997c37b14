import numpy as np
import pytest
from scipy.stats import norm, rankdata, spearmanr

from fsae_mlflow.features.statistics.association import Association, association, association_within_people
from fsae_mlflow.sae.entries import Entries
from tests.features.statistics.samples import dense_features, people_of, sample


def properties_of(people: np.ndarray, m: int, seed: int) -> np.ndarray:
    """Properties that depend on the person in part; the second is an attribute, and some values are unknown."""
    numbers = np.random.default_rng(seed)
    z = numbers.normal(size=(people.max() + 1, m))[people] + numbers.normal(size=(len(people), m))
    z[:, 1] = z[:, 1] > 1
    z[numbers.random(len(people)) < 0.2, 2] = np.nan
    return z


def residual(z: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """What is left of columns after a least-squares fit to the constant and the controls."""
    design = np.column_stack([np.ones(len(z)), controls])
    return z - design @ np.linalg.lstsq(design, z, rcond=None)[0]


def expected(a: np.ndarray, z: np.ndarray, people: np.ndarray, freedom: int) -> tuple[float, float]:
    """The correlation of centered vectors and its t: dense, person by person."""
    per_person = np.array([a[people == person] @ z[people == person] for person in np.unique(people)])
    variance = max(per_person @ per_person, a @ a * (z @ z) / freedom)
    return a @ z / np.sqrt(a @ a * (z @ z)), a @ z / np.sqrt(variance)


@pytest.mark.parametrize("seed", range(8))
def test_rho_is_spearmans(seed: int) -> None:
    features, entries, people = sample(seed=seed)
    properties = properties_of(people, 4, seed)
    found = association(entries, properties, people)
    for j in range(2, features.shape[1]):
        for c in range(4):
            rho = spearmanr(features[:, j], properties[:, c], nan_policy="omit").statistic
            assert found.rho[j, c] == pytest.approx(rho, abs=1e-9)


@pytest.mark.parametrize("controlled", [False, True])
def test_rho_and_t_are_those_of_dense_residuals(controlled: bool) -> None:
    features, entries, people = sample()
    properties = properties_of(people, 4, 5)
    yaw = np.random.default_rng(6).normal(size=len(people))
    yaw[:7] = np.nan
    controls = np.column_stack([yaw, np.abs(yaw), 2 * yaw]) if controlled else None  # the third says nothing new
    found = association(entries, properties, people, controls=controls)
    for c in range(4):
        known = ~np.isnan(properties[:, c]) & (~np.isnan(yaw) if controlled else True)
        ranked = np.zeros((known.sum(), 0)) if controls is None else rankdata(controls[known], axis=0)
        z = residual(rankdata(properties[known, c]), ranked)
        for j in range(2, features.shape[1]):
            a = residual(rankdata(features[known, j]), ranked)
            rho, t = expected(a, z, people[known], known.sum() - (3 if controlled else 1))
            assert found.rho[j, c] == pytest.approx(rho, abs=1e-9)
            assert found.t[j, c] == pytest.approx(t)
            assert found.error[j, c] == pytest.approx(abs(rho / t))
            assert found.p[j, c] == pytest.approx(2 * norm.sf(abs(t)))
            assert found.n_people[j, c] == len(set(people[known][features[known, j] > 0]))


def test_within_people_is_of_centered_values() -> None:
    features, entries, people = sample()
    properties = properties_of(people, 4, 5)
    found = association_within_people(entries, properties, people)
    for c in range(4):
        known = ~np.isnan(properties[:, c])
        who = people[known]
        mine = who[:, None] == who
        several = mine.sum(axis=1) > 1
        freedom = several.sum() - len(set(who[several]))
        z = properties[known, c] - mine @ properties[known, c] / mine.sum(axis=1)
        for j in range(2, features.shape[1]):
            fired = features[known, j].astype(float)
            rho, t = expected(fired - mine @ fired / mine.sum(axis=1), z, who, freedom)
            of_who_fires = mine @ fired > 0
            share = np.square(z[of_who_fires]).sum() / np.square(z).sum()
            assert found.rho[j, c] == pytest.approx(rho / np.sqrt(share), abs=1e-9)
            assert found.t[j, c] == pytest.approx(t)
            assert found.n_people[j, c] == len(set(who[several & (fired > 0)]))


def test_people_who_do_not_fire_a_feature_do_not_weaken_its_correlation_within_people() -> None:
    signal = np.random.default_rng(0).normal(size=120)
    people = np.repeat(np.arange(40), 3)
    silent = np.where(people < 20, np.exp(signal), 0)[:, None]
    few = association_within_people(Entries.of(silent[:60]), signal[:60, None], people[:60])
    all_ = association_within_people(Entries.of(silent), signal[:, None], people)
    assert all_.rho == pytest.approx(few.rho)
    assert all_.t == pytest.approx(few.t)


def test_how_a_person_always_looks_has_no_effect_within_people() -> None:
    _, entries, people = sample()
    properties = properties_of(people, 4, 5)
    of_person = np.random.default_rng(1).normal(size=(people.max() + 1, 1))[people]
    plain = association_within_people(entries, properties, people)
    moved = association_within_people(entries, properties + 100 * of_person, people)
    assert moved.rho == pytest.approx(plain.rho, nan_ok=True)
    constant = association_within_people(entries, of_person, people)
    assert np.isnan(constant.rho).all() and np.isnan(constant.p).all()


def null(n_features: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features and a property that have nothing in common but the people, whom both depend on."""
    people = people_of(400, seed)
    numbers = np.random.default_rng(seed)
    z = 2 * numbers.normal(size=people.max() + 1)[people] + numbers.normal(size=len(people))
    return dense_features(people, n_features, seed, density=0.1)[:, 2:], z[:, None], people


def test_p_is_uniform_where_faces_of_a_person_are_alike() -> None:
    p, naive = [], []
    for seed in range(8):
        features, z, people = null(120, seed)
        p.append(association(Entries.of(features), z, people).p[:, 0])
        naive.append(spearmanr(features, z).pvalue[-1, :-1])
    p, naive = np.concatenate(p), np.concatenate(naive)
    assert len(p) == 944
    for level in (0.01, 0.05, 0.2, 0.5):
        assert (p < level).mean() == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / len(p)))
    assert (naive < 0.05).mean() > 0.1


def test_p_within_people_is_uniform() -> None:
    numbers = np.random.default_rng(0)
    people = people_of(400, 0)
    features = dense_features(people, 902, 0, density=0.1)[:, 2:]
    p = association_within_people(Entries.of(features), np.abs(numbers.normal(size=(len(people), 1))), people).p
    for level in (0.01, 0.05, 0.2, 0.5):
        assert (p < level).mean() == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / len(p)))


def test_a_rare_attribute_that_nobody_of_a_few_has_is_no_association() -> None:
    numbers = np.random.default_rng(0)
    people = people_of(500, 0)
    features = numbers.random((len(people), 400)) < 20 / len(people)
    attribute = (numbers.random(500) < 0.05)[people].astype(float)[:, None]
    found = association(Entries.of(features.astype(float)), attribute, people)
    assert (found.n_people > 10).mean() > 0.9
    assert (found.p < 0.01).mean() < 0.02


def test_p_is_that_of_permuted_people() -> None:
    numbers = np.random.default_rng(0)
    people = np.repeat(np.arange(150), 4)
    features = dense_features(people, 8, 1)[:, 2:]
    of_person = numbers.normal(size=150)
    z = (of_person[people] + 0.3 * numbers.normal(size=600)).reshape(150, 4)
    features[:, 0] += features[:, 0] * (z.ravel() > 0.5)
    entries = Entries.of(features)
    shuffled = np.column_stack([z.ravel(), *(z[numbers.permutation(150)].ravel() for _ in range(2000))])
    found = association(entries, shuffled, people)
    permutation = (np.abs(found.rho[:, 1:]) >= np.abs(found.rho[:, :1])).mean(axis=1)
    assert found.p[:, 0] == pytest.approx(permutation, abs=0.06)


def test_one_person_reaches_no_significance() -> None:
    people = np.repeat(np.arange(100), 20)
    features = np.zeros((2000, 2))
    features[:20, 0] = 1  # one person
    features[[0, 40, 80, 120, 160, 200, 240, 280, 320], 1] = 1  # nine people
    z = (people == 0).astype(float) + np.random.default_rng(0).normal(size=2000) / 100
    found = association(Entries.of(features), z[:, None], people)
    assert found.rho[0, 0] > 0.15
    assert abs(found.t[0, 0]) < 1.1
    assert found.p[:, 0].tolist() == [1, 1]
    assert found.n_people[:, 0].tolist() == [1, 9]


def test_copies_of_a_picture_add_no_evidence() -> None:
    numbers = np.random.default_rng(0)
    people = np.concatenate([np.arange(800), np.zeros(60, np.int64)])  # 60 copies of the picture of person 0
    z = np.concatenate([[5], numbers.normal(size=799), np.full(60, 5)])[:, None]
    features = (numbers.random((860, 1)) < 0.05).astype(float)
    features[people == 0] = 1
    found = association(Entries.of(features), z, people)
    assert found.rho[0, 0] > 0.2
    assert found.n_people[0, 0] > 30
    assert found.p[0, 0] > 0.2


def test_what_does_not_vary_has_no_association() -> None:
    _, entries, people = sample()
    properties = np.column_stack([np.full(len(people), 3.0), np.full(len(people), np.nan), np.arange(len(people))])
    found = association(entries, properties.astype(float), people)
    assert np.isnan(found.rho[:, :2]).all() and np.isnan(found.p[:, :2]).all()
    assert np.isnan(found.rho[:2]).all()
    assert found.p[:2, 2].tolist() == [1, 1]
    assert not np.isnan(found.rho[2:, 2]).any()


def test_people_of_one_face_show_nothing_within_people() -> None:
    found = association_within_people(Entries.of(np.eye(30)), np.arange(30.0)[:, None], np.arange(30))
    assert np.isnan(found.rho).all()
    assert not found.n_people.any()


def test_nothing_fires() -> None:
    people = np.repeat(np.arange(10), 3)
    for relate in (association, association_within_people):
        found = relate(Entries.of(np.zeros((30, 2))), np.arange(30.0)[:, None], people)
        assert np.isnan(found.rho).all()
        assert found.p.tolist() == [[1], [1]]


def test_a_property_that_never_varies_where_the_feature_fires_shows_nothing() -> None:
    people = np.repeat(np.arange(60), 3)
    features = np.zeros((180, 1))
    features[:90:2] = 0.7
    z = np.where(people < 30, 0.1, np.random.default_rng(0).normal(size=180))
    found = association_within_people(Entries.of(features), z[:, None], people)
    assert found.n_people[0, 0] == 30
    assert found.p[0, 0] == 1
    assert not found.inside(0.1)[0, 0]


def test_inside_needs_the_whole_interval_and_ten_people() -> None:
    rho, error = np.array([[0.05, -0.05, 0.0, 0.0, np.nan]]), np.array([[0.02, 0.03, 0.06, 0.01, 0.01]])
    n_people = np.array([[10, 10, 10, 9, 10]])
    assert Association(rho=rho, error=error, t=rho, p=rho, n_people=n_people).inside(0.1).tolist() == [
        [True, False, False, False, False]
    ]
