import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from fsae_mlflow.features.statistics.top_shares import top_faces, top_shares
from fsae_mlflow.sae.entries import Entries
from tests.features.statistics.samples import sample


def walk(activations: np.ndarray, people: np.ndarray, k: int, of_a_person: int) -> list[int]:
    """The top rows of one feature, chosen one by one."""
    rows: list[int] = []
    for row in sorted(np.flatnonzero(activations), key=lambda row: (-activations[row], row)):
        if len(rows) < k and sum(people[chosen] == people[row] for chosen in rows) < of_a_person:
            rows.append(int(row))
    return rows


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 99), st.sampled_from([1, 5, 40, 400]), st.integers(1, 3))
def test_top_faces_are_the_highest_with_few_of_a_person(seed: int, k: int, of_a_person: int) -> None:
    features, entries, people = sample(30, 5, seed)
    top = top_faces(entries, people, k=k, of_a_person=of_a_person)
    for j in range(5):
        rows = walk(features[:, j], people, k, of_a_person)
        assert top.rows[j].tolist() == rows + [-1] * (k - len(rows))
        first = [people[row] not in people[rows[:i]] for i, row in enumerate(rows)]
        assert top.first[j].tolist() == first + [False] * (k - len(rows))


@pytest.mark.parametrize("seed", range(8))
def test_shares_and_p_are_those_of_the_labeled_top_faces(seed: int) -> None:
    features, entries, people = sample(30, 5, seed)
    numbers = np.random.default_rng(seed)
    labels = (numbers.random((len(people), 3)) < [0.3, 0.05, 0.5]).astype(float)
    labels[numbers.random(len(people)) < 0.4, 2] = np.nan
    found = top_shares(entries, labels, people, k=10)
    for c in range(3):
        known = ~np.isnan(labels[:, c])
        y, who = labels[known, c], people[known]
        assert found.base[c] == pytest.approx(y.mean())
        for j in range(1, 5):
            rows = walk(features[known, j], who, 10, 3)
            heads = [row for i, row in enumerate(rows) if who[row] not in who[rows[:i]]]
            assert found.share[j, c] == pytest.approx(y[rows].mean())
            of_faces = hypergeom.sf(y[heads].sum() - 1, len(y), y.sum(), len(heads))
            means = [y[who == person].mean() for person in np.unique(who)]
            of_people = hypergeom.sf(y[heads].sum() - 1, len(means), round(sum(means)), len(heads))
            assert found.p[j, c] == pytest.approx(max(of_faces, of_people), abs=1e-12)
    assert np.isnan(found.share[0]).all()
    assert (found.p[0] == 1).all()


def test_people_with_many_pictures_do_not_make_an_attribute_of_the_others() -> None:
    numbers = np.random.default_rng(0)
    has_it = np.arange(300) % 2 == 0
    people = np.repeat(np.arange(300), np.where(has_it, 4, 30))  # who lacks it has many pictures
    labels = has_it[people].astype(float)[:, None]
    activations = (numbers.random((300, 200)) * (numbers.random((300, 200)) < 0.3))[people]
    p = top_shares(Entries.of(activations), labels, people, k=30).p
    assert (p < 0.01).mean() < 0.02


def test_one_person_has_no_small_p() -> None:
    people = np.repeat(np.arange(50), 40)
    labels = (people == 7).astype(float)[:, None]  # one in fifty faces
    features = (
        np.stack([people == 7, (people == 7) | (np.arange(2000) % 40 == 0)], axis=1) * np.linspace(2, 1, 2000)[:, None]
    )
    found = top_shares(Entries.of(features), labels, people, k=30)
    assert found.share[:, 0].tolist() == [1, 3 / 30]
    assert found.p[0, 0] == pytest.approx(0.02)
    assert found.p[1, 0] > 0.3


def test_an_attribute_known_nowhere_has_no_share() -> None:
    _, entries, people = sample(30, 5, 0)
    found = top_shares(entries, np.full((len(people), 1), np.nan), people, k=10)
    assert np.isnan(found.share).all() and np.isnan(found.p).all() and np.isnan(found.base).all()


def test_p_of_a_random_attribute_of_people_is_rarely_small() -> None:
    numbers = np.random.default_rng(0)
    people = np.repeat(np.arange(500), 4)
    of_person = numbers.normal(size=(500, 300))
    features = (of_person[people] + 0.2 * numbers.normal(size=(2000, 300)) - 1).clip(0)
    labels = (numbers.random((500, 20)) < 0.3)[people].astype(float)
    p = top_shares(Entries.of(features), labels, people, k=30).p
    assert 0.002 < (p < 0.01).mean() < 0.012
    assert 0.02 < (p < 0.05).mean() < 0.06
