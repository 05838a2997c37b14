from pathlib import Path

import numpy as np
import pytest

from fsae_mlflow.features.activity.duplicates import distinct, without_duplicates
from fsae_mlflow.features.activity.summary import FaceLists
from fsae_mlflow.templates.set import TemplateSet
from tests.template_sets import TemplateWriter, face_row


def some_templates(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 256)).astype(np.float32)


def near(template: np.ndarray, cosine: float) -> np.ndarray:
    """A template with this cosine to another."""
    other = np.random.default_rng(1).normal(size=len(template))
    unit = template / np.linalg.norm(template)
    other -= (other @ unit) * unit
    return (cosine * unit + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)).astype(np.float32)


def test_the_first_of_near_duplicates_stays() -> None:
    templates = some_templates(8)
    templates[3] = 5 * templates[1]  # the same direction: length does not count
    templates[6] = near(templates[2], 0.985)
    templates[7] = near(templates[4], 0.975)
    assert np.flatnonzero(~distinct(templates)).tolist() == [3, 6]


def test_many_blocks_are_compared_with_all_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsae_mlflow.features.activity.duplicates.BLOCK", 3)
    templates = some_templates(11)
    templates[10] = templates[0]
    templates[5] = templates[4]
    assert np.flatnonzero(~distinct(templates)).tolist() == [5, 10]


def test_lists_lose_near_duplicates_of_a_face_before_them(tmp_path: Path) -> None:
    templates = some_templates(9)
    templates[5] = templates[1]
    with TemplateWriter(tmp_path, width=256, metadata={}, shard_rows=4) as writer:
        writer.write([face_row(f"p/{row}.png", template, b"") for row, template in enumerate(templates)])
    faces = TemplateSet.open(tmp_path)
    lists = FaceLists(
        rows=np.array([[1, 5, 2, 3], [5, 2, 1, 0], [4, 0, 0, 0]], np.int32),
        activations=np.array([[4, 3, 2, 1], [4, 3, 2, 0], [1, 0, 0, 0]], np.float32),
        n=np.array([4, 3, 1], np.int32),
    )
    thinned, n_dropped = without_duplicates(lists, faces, most=2)
    assert n_dropped.tolist() == [1, 1, 0]
    assert thinned.n.tolist() == [2, 2, 1]
    assert [row[:n].tolist() for row, n in zip(thinned.rows, thinned.n, strict=True)] == [[1, 2], [5, 2], [4]]
    assert thinned.activations[0].tolist() == [4, 2]
