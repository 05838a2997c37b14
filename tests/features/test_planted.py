"""The planted faces are as they say, before anything is concluded from what is found on them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fsae_mlflow.faces.quality import interocular, yaw
from tests.features.planted import (
    PlantedFaces,
    PlantedFeatures,
    Truth,
    every_truth,
    planted_faces,
    planted_features,
    planted_set,
    planted_templates,
)


@pytest.fixture(scope="module")
def faces() -> PlantedFaces:
    return planted_faces(150)


@pytest.fixture(scope="module")
def features(faces: PlantedFaces) -> PlantedFeatures:
    return planted_features(faces, every_truth(faces, strengths=(0.8,), densities=(0.1,), n_people=4, n_noise=1))


def test_each_side_has_people_of_its_own(faces: PlantedFaces) -> None:
    sides = [set(faces.people[mask].tolist()) for mask in (faces.confirm, ~faces.confirm)]
    assert not sides[0] & sides[1]
    assert abs(len(sides[0]) - len(sides[1])) <= 1


def test_features_fire_as_often_as_they_say(faces: PlantedFaces, features: PlantedFeatures) -> None:
    entries = features.entries
    expected = [0.0 if truth.kind == "dead" else truth.density for truth in features.truths]
    # Where noise is of people alone, all faces of a person fire or none.
    spread = [0.02 if truth.noise_of_people == 1 else 0.001 for truth in features.truths]
    assert (np.abs(entries.counts / entries.n_rows - expected) <= spread).all()
    assert (entries.counts[features.of("dead")] == 0).all()


def test_features_correlate_with_what_they_mean(faces: PlantedFaces) -> None:
    truths = [Truth("attribute", "Eyeglasses", 0.8), Truth("pose", "left", 0.8), Truth("quality", "norm -", 0.8)]
    scores = planted_features(faces, [*truths, Truth("noise", noise_of_people=0.5)]).scores
    meant = np.stack([faces.attributes["Eyeglasses"], -faces.properties["yaw"], -faces.properties["norm"]], axis=1)
    found = np.corrcoef(scores, meant, rowvar=False)[:4, 4:]
    np.testing.assert_allclose(np.diag(found[:3]), 0.8, atol=0.05)
    assert np.abs(found[3]).max() < 0.2


def test_the_hand_set_sae_finds_the_planted_features(faces: PlantedFaces, features: PlantedFeatures) -> None:
    templates, sae = planted_templates(faces, features, d_in=len(features.truths) + 8)
    np.testing.assert_allclose(sae.encode(torch.from_numpy(templates)), features.activations, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(templates, axis=1), faces.properties["norm"], rtol=1e-5)


def test_a_planted_set_holds_what_is_known(tmp_path: Path, faces: PlantedFaces, jpeg: bytes) -> None:
    templates = np.random.default_rng(0).normal(size=(len(faces.people), 4)).astype(np.float32)
    found = planted_set(tmp_path / "set", faces, templates, jpeg)
    np.testing.assert_array_equal(found.templates, templates)
    for name, values in (faces.labels | faces.numbers).items():
        np.testing.assert_array_equal(found.column(name).astype(float), values)
    points = found.column("keypoints").reshape(-1, 5, 2)
    np.testing.assert_allclose([yaw(point) for point in points], faces.properties["yaw"], atol=1e-4)
    np.testing.assert_allclose([interocular(point) for point in points], faces.properties["interocular"], rtol=1e-4)
    eyes = points[:, 1] - points[:, 0]
    np.testing.assert_allclose(np.rad2deg(np.arctan2(eyes[:, 1], eyes[:, 0])), faces.properties["roll"], atol=1e-2)
