import numpy as np
import pytest
from scipy.stats import entropy, hypergeom
from sklearn.metrics import roc_auc_score

from fsae_mlflow.features.statistics.identity import identity
from fsae_mlflow.sae.entries import Entries
from tests.features.statistics.samples import sample


@pytest.mark.parametrize("seed", range(8))
def test_every_number_is_that_of_a_walk_over_the_faces(seed: int) -> None:
    features, entries, people = sample(25, 5, seed)
    number = np.array([(people[:row] == people[row]).sum() for row in range(len(people))])
    even, odd = number % 2 == 0, number % 2 == 1
    found = identity(entries, people)
    for j in range(1, 5):
        a = features[:, j].astype(float)
        sums = np.bincount(people[even], a[even], minlength=25)
        person = int(found.person[j])
        assert sums[person] == pytest.approx(sums.max())
        top = sorted(np.flatnonzero(a), key=lambda row: (-a[row], row))[:20]
        assert found.purity[j] == pytest.approx((people[top] == found.person[j]).mean())
        spread = np.bincount(people, a)
        assert found.entropy[j] == pytest.approx(entropy(spread) / np.log((spread > 0).sum()), abs=1e-6)
        mine = people[odd] == person
        if not mine.any():
            assert np.isnan(found.auroc[j]) and np.isnan(found.p[j])
            continue
        fired = a[odd] > 0
        assert found.auroc[j] == pytest.approx(roc_auc_score(mine, a[odd]))
        p = hypergeom.sf((fired & mine).sum() - 1, len(mine), fired.sum(), mine.sum())
        assert found.p[j] == pytest.approx(p, abs=1e-12)
    assert found.person[0] == -1
    assert np.isnan([found.purity[0], found.entropy[0], found.auroc[0], found.p[0]]).all()


def test_a_persons_feature_is_found_on_other_pictures() -> None:
    people = np.repeat(np.arange(30), 10)
    features = np.zeros((300, 3))
    features[people == 4, 0] = 2.0
    features[0, 0] = 0.5
    features[40:50:2, 1] = 1.0  # fires on the even-numbered pictures only
    features[0, 1] = 0.1
    features[::10, 2] = 1.0  # one picture of each person
    found = identity(Entries.of(features), people)
    assert found.person.tolist() == [4, 4, 0]
    assert found.purity == pytest.approx([10 / 11, 5 / 6, 1 / 20])
    assert found.p[0] < 1e-7
    assert found.auroc[0] == 1
    assert found.p[1] == 1
    assert found.auroc[1] == 0.5
    assert found.entropy[0] < 0.2
    assert found.entropy[2] == pytest.approx(1)


def test_few_faces_or_one_person_are_not_judged() -> None:
    people = np.repeat(np.arange(5), 10)
    features = np.zeros((50, 2))
    features[:10, 0] = 1  # ten faces of one person
    features[[0, 1, 2, 10], 1] = 1  # four faces of two people
    found = identity(Entries.of(features), people)
    assert found.person.tolist() == [-1, -1]
    assert np.isnan(np.stack([found.purity, found.entropy, found.auroc, found.p])).all()
