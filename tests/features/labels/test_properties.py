from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsae_mlflow.features.labels.properties import face_properties
from fsae_mlflow.templates.set import TemplateSet
from tests.pictures import encoded
from tests.template_sets import TemplateWriter, face_row

COLORS = [(90, 80, 70), (200, 200, 200), (0, 0, 0), (255, 0, 0), (40, 60, 50)]


def write(folder: Path, templates: np.ndarray) -> TemplateSet:
    """Five faces in shards of two; the last is a central crop, of which neither keypoints nor yaw are known."""
    turned = np.array([[30, 50], [70, 90], [50, 80], [40, 90], [60, 95]], np.float32)
    with TemplateWriter(folder, width=4, metadata={}, shard_rows=2) as writer:
        for number, (template, color) in enumerate(zip(templates, COLORS, strict=True)):
            row = face_row(f"p/{number}.jpg", template, encoded(Image.new("RGB", (112, 112), color)))
            row = replace(row, yaw=number / 10, sharpness=10.0 * number, keypoints=turned)
            if number == 4:
                row = replace(row, yaw=np.nan, interocular=np.nan, keypoints=np.full((5, 2), np.nan, np.float32))
            writer.write([replace(row, box=np.array([10, 20, 10 + 9 * number, 24], np.float32))])
    return TemplateSet.open(folder)


def test_properties_of_chosen_rows(tmp_path: Path) -> None:
    raw = np.array([[3.0, 4, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0], [0, 0, 0, 5], [0, 6, 0, 0]])
    found = face_properties(write(tmp_path, raw), np.array([3, 0, 4, 1, 3]))
    nan = np.nan
    expected = {
        "yaw": [0.3, 0, nan, 0.1, 0.3],
        "sharpness": [30, 0, 40, 10, 30],
        "interocular": [60, 60, nan, 60, 60],
        "norm": [5, 5, 6, 1, 5],
        "face_size": [np.sqrt(27 * 4), 0, nan, 6, np.sqrt(27 * 4)],
        "roll": [45, 45, nan, 45, 45],
        "brightness": [0.299 * 255, 0.299 * 90 + 0.587 * 80 + 0.114 * 70, 0.299 * 40 + 0.587 * 60 + 5.7, 200, 76.245],
        "grayness": [0, 70 / 90, 40 / 60, 1, 0],
    }
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-6, nan_ok=True), name


def test_the_length_of_unit_templates_is_unknown(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).normal(size=(5, 4)) * 3
    raw = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    assert np.isnan(face_properties(write(tmp_path, raw), np.arange(5))["norm"]).all()


def test_no_rows_have_no_properties(template_set: TemplateSet) -> None:
    assert all(len(values) == 0 for values in face_properties(template_set, np.arange(0)).values())
