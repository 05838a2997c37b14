import numpy as np
import pytest

from fsae_mlflow.templates.rows import drawn_rows


def test_all_faces_of_people_are_drawn() -> None:
    identities = np.repeat([f"p{person}" for person in range(2000)], 5)
    rows = drawn_rows(identities, 1000)
    assert 800 < len(rows) < 1200
    assert (np.unique(identities[rows], return_counts=True)[1] == 5).all()


@pytest.mark.parametrize("person", ["a", "b", "c", "d"])
def test_of_few_people_rows_are_evenly_spaced(person: str) -> None:
    rows = drawn_rows(np.full(10_000, person), 100)
    assert len(rows) == 100 and (np.diff(rows) >= 100).all()
    assert drawn_rows(np.full(40, person), 100).tolist() == list(range(40))
