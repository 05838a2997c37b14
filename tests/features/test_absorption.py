"""Rates of planted entries, which follow from how often each feature was made to fire."""

import numpy as np
import pytest

from fsae_mlflow.features.absorption import absorption, absorption_metrics, hierarchies
from fsae_mlflow.sae.entries import Entries

N_PEOPLE, N_EACH = 200, 10
PEOPLE = np.repeat(np.arange(N_PEOPLE), N_EACH)
CONFIRM = PEOPLE % 2 == 1
# Of each person's ten faces, the first five show the parent, the first two of them the child.
PLACE = np.tile(np.arange(N_EACH), N_PEOPLE)
PARENT, CHILD = PLACE < 5, PLACE < 2


def labels(**more: np.ndarray) -> dict[str, np.ndarray]:
    return {
        name: np.asarray(values, np.float64) for name, values in ({"beard": PARENT, "goatee": CHILD} | more).items()
    }


def entries(*fires: np.ndarray) -> Entries:
    """Features that fire on the given faces, and one that fires on all."""
    return Entries.of(np.stack([*fires, np.ones(len(PEOPLE), bool)], axis=1).astype(np.float32))


def found(features: Entries, **more: np.ndarray) -> dict[str, float]:
    return absorption_metrics(absorption(features, labels(**more), people=PEOPLE, confirm=CONFIRM))


def test_a_parent_that_is_silent_on_its_child_is_absorbed() -> None:
    # The parent's feature misses the child's faces, and one of the parent's three others.
    parent, child = PARENT & ~CHILD & (PLACE != 3), CHILD & ((PLACE == 0) | (PEOPLE < 100))
    fired = child[CONFIRM & CHILD].mean()
    assert fired == 0.75
    assert found(entries(parent, child)) == {
        "absorption/n_hierarchies": 1,
        "absorption/rate": fired,  # wherever the child's fires
        "absorption/by_chance": pytest.approx(fired / 3),
    }


def test_a_parent_that_fires_on_all_its_faces_is_not() -> None:
    metrics = found(entries(PARENT, CHILD))
    assert (metrics["absorption/rate"], metrics["absorption/by_chance"]) == (0, 0)


def test_a_sparse_parent_is_absorbed_as_often_as_by_chance() -> None:
    # It fires on half of the parent's faces, whether they are the child's or not.
    metrics = found(entries(PARENT & (PEOPLE % 4 < 2), CHILD))
    assert metrics["absorption/rate"] == metrics["absorption/by_chance"] == 0.5


def test_one_feature_for_both_absorbs_nothing() -> None:
    one = absorption(entries(PARENT), labels(), people=PEOPLE, confirm=CONFIRM)
    assert [absorbed.features for absorbed in one] == []  # no feature tells the child from the parent's others
    assert found(entries(CHILD))["absorption/rate"] == 0


def test_features_are_chosen_on_discovery_people_and_measured_on_others() -> None:
    # A better feature of the parent on the confirmation people must not be seen.
    chosen = np.where(CONFIRM, PLACE == 9, PARENT & ~CHILD)
    hidden = np.where(CONFIRM, PARENT, PLACE == 9)
    one = absorption(entries(hidden, chosen, CHILD), labels(), people=PEOPLE, confirm=CONFIRM)
    assert [absorbed.features for absorbed in one] == [(1, 2)]
    assert one[0].rate == 1


def test_features_of_few_people_are_not_chosen() -> None:
    # The rare one tells most of the parent, but nine discovery people fire it.
    rare, number = PARENT & (PEOPLE < 18), PEOPLE // 2 % 10
    common, child = np.where(PARENT, number < 6, number < 4), CHILD & (number == 9)
    one = absorption(entries(rare, common, child), labels(), people=PEOPLE, confirm=CONFIRM)
    assert [absorbed.features for absorbed in one] == [(1, 2)]


def test_hierarchies_are_those_of_the_labels() -> None:
    coin = np.random.default_rng(0).random(len(PEOPLE)) < 0.5
    rare = CHILD & (PEOPLE < 12)  # six people on either side
    nearly = CHILD.copy()
    nearly[np.flatnonzero(PLACE == 9)[:40]] = True  # 91 % of them are the parent's
    shaven = np.where(PLACE == 8, np.nan, ~PARENT)
    common = PLACE < 8  # with 80 % of all faces, the parent of too many
    given = labels(coin=coin, rare=rare, nearly=nearly, shaven=shaven, common=common)
    pairs = {(one.parent, one.child) for one in hierarchies(given, people=PEOPLE, confirm=CONFIRM)}
    assert {pair for pair in pairs if pair[1] == "goatee"} == {
        ("beard", "goatee"),
        ("not shaven", "goatee"),
        ("nearly", "goatee"),
    }
    assert not any(parent.endswith(("coin", "common")) or child in ("coin", "rare") for parent, child in pairs)
    assert ("beard", "nearly") not in pairs


def test_unknown_labels_are_left_out() -> None:
    unknown = np.where((PLACE == 1) | (PLACE == 3), np.nan, PARENT)
    parent = PARENT & ~CHILD & (PLACE != 3)
    metrics = absorption_metrics(
        absorption(entries(parent, CHILD), labels() | {"beard": unknown}, people=PEOPLE, confirm=CONFIRM)
    )
    assert (metrics["absorption/rate"], metrics["absorption/by_chance"]) == (1, 0)


def test_without_a_hierarchy_there_is_no_metric() -> None:
    assert absorption_metrics(absorption(entries(PARENT), {}, people=PEOPLE, confirm=CONFIRM)) == {}
