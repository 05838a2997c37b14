import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsae_mlflow.sae.entries import Entries


def sparse(n: int, d_sae: int, seed: int) -> np.ndarray:
    numbers = np.random.default_rng(seed)
    return (numbers.random((n, d_sae)) * (numbers.random((n, d_sae)) < 0.3)).astype(np.float32)


def dense(entries: Entries) -> np.ndarray:
    features = np.zeros((entries.n_rows, entries.d_sae), np.float32)
    features[entries.rows, entries.feature] = entries.values
    return features


def test_entries_are_the_features_above_zero() -> None:
    features = np.array([[0.0, 2.0, 0.0], [1.0, 3.0, 0.0]])
    entries = Entries.of(features)
    assert entries.indptr.tolist() == [0, 1, 3, 3]
    assert entries.rows.tolist() == [1, 0, 1]
    assert entries.values.tolist() == [1, 2, 3]
    assert entries.per_row().tolist() == [1, 2]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 99))
def test_parts_join_to_the_whole(sizes: list[int], seed: int) -> None:
    features = sparse(sum(sizes), 4, seed)
    stops = np.cumsum(sizes)[:-1]
    joined = Entries.joined([Entries.of(part) for part in np.split(features, stops)])
    whole = Entries.of(features)
    assert np.array_equal(joined.indptr, whole.indptr)
    assert np.array_equal(joined.rows, whole.rows)
    assert np.array_equal(joined.values, whole.values)


def test_rows_are_chosen_and_numbered_anew() -> None:
    features = sparse(9, 5, 0)
    mask = np.arange(9) % 3 != 1
    assert np.array_equal(dense(Entries.of(features).of_rows(mask)), features[mask])


def test_sums_are_a_product() -> None:
    features = sparse(9, 5, 1)
    columns = np.random.default_rng(2).normal(size=(9, 2))
    entries = Entries.of(features)
    assert entries.sums(entries.values, columns) == pytest.approx(features.T @ columns, rel=1e-6)
