from dataclasses import replace

import numpy as np
import pytest

from fsae_mlflow.features.readings.judgments import ReadFaces
from fsae_mlflow.features.readings.sentences import read_features
from fsae_mlflow.features.statistics.monosemanticity import monosemanticity
from fsae_mlflow.sae.entries import Entries
from tests.features.readings.test_judgments import PEOPLE, follow, noise, read_faces, slightly_sharp


def features_of(faces: ReadFaces) -> np.ndarray:
    """Glasses, sharp, left, a person, one face of each of nine people, dead, and forty of noise."""
    person = np.where(PEOPLE == 7, 2.0, 0)
    person[:2] = 1
    few = ((PEOPLE < 9) & (np.arange(len(PEOPLE)) % 6 == 0)).astype(float)
    signals = [faces.booleans["glasses"], faces.properties["sharpness"], -faces.properties["yaw"]]
    return np.column_stack([*(follow(x, 0.85) for x in signals), person, few, 0 * few, noise(40).clip(1) - 1])


def test_a_sentence_says_what_is_confirmed() -> None:
    faces = read_faces()
    entries = Entries.of(features_of(faces))
    found = read_features(entries, faces, high=entries.counts > 100, seed=0)
    columns = found.columns
    assert columns["reading"][0].startswith("Glasses (100 % of its top faces, ")
    assert "fires more on sharp faces" in columns["reading"][1].lower()
    assert "fires more on faces turned to the left of the image" in columns["reading"][2].lower()
    assert columns["reading"][3].startswith("Person p007 (75 % of its strongest faces)")
    assert columns["reading"][4:6].tolist() == ["unread", "dead"]
    assert all(sentence.endswith(".") for sentence in columns["reading"][:4])
    assert columns["confirmed"][:6].tolist() == [True] * 4 + [False] * 2
    assert (columns["confirmed"] == ~np.isin(columns["reading"].astype(str), ["unread", "dead"])).all()
    assert columns["judged"][:6].tolist() == [True, True, True, False, False, False]
    assert all(len(values) == entries.d_sae for values in columns.values())


def test_several_properties_and_a_number_stand_in_one_sentence() -> None:
    faces = read_faces()
    bright, gray, age = faces.properties["brightness"], faces.properties["grayness"], faces.numbers["age"]
    features = np.column_stack([follow(bright - gray, 0.9), follow(-age, 0.9), noise(40).clip(1) - 1])
    found = read_features(Entries.of(features), faces, high=np.zeros(42, bool), seed=0).columns["reading"]
    assert "fires more on bright and colorful faces" in found[0].lower()
    assert found[1].startswith("Falls with age (ρ −0.")


def test_a_small_correlation_is_no_reading() -> None:
    entries, faces = slightly_sharp()
    found = read_features(entries, faces, high=np.zeros(2, bool), seed=0).columns
    assert found["sharpness_confirmed"][0]
    assert not found["confirmed"].any()
    assert found["reading"].tolist() == ["unread", "unread"]


def test_underscores_are_spaces() -> None:
    faces = read_faces()
    faces = replace(faces, booleans={"heavy_makeup": faces.booleans["makeup"]})
    features = np.column_stack([follow(faces.booleans["heavy_makeup"], 0.9), noise(40).clip(1) - 1])
    found = read_features(Entries.of(features), faces, high=np.zeros(41, bool), seed=0).columns
    assert found["reading"][0].startswith("Heavy makeup (")
    assert found["attribute"][0] == "heavy_makeup"


def test_metrics_are_shares_and_counts() -> None:
    faces = read_faces()
    entries = Entries.of(features_of(faces))
    high = np.zeros(entries.d_sae, bool)
    high[:4] = True
    found = read_features(entries, faces, high=high, seed=0)
    columns, metrics = found.columns, found.metrics
    alive = entries.counts > 0
    assert alive.sum() == entries.d_sae - 1
    n_confirmed = columns["confirmed"].sum()
    assert metrics["readings/n_judged"] == columns["judged"].sum() == 43
    assert metrics["readings/confirmed_of_alive"] == pytest.approx(n_confirmed / alive.sum())
    assert metrics["readings/confirmed_of_judged"] == pytest.approx(
        (columns["confirmed"] & columns["judged"]).sum() / 43
    )
    assert metrics["readings/strong_of_alive"] == pytest.approx(columns["attribute_strong"].sum() / alive.sum())
    assert metrics["readings/n_kinds"] == len(set(columns["attribute"][columns["attribute_strong"]]))
    assert metrics["readings/n_identities"] == 1
    assert metrics["readings/high_density/n_judged"] == 3
    assert metrics["readings/high_density/confirmed_of_alive"] == 1
    assert metrics["readings/high_density/confirmed_of_judged"] == 1
    assert metrics["readings/low_density/n_identities"] == 0
    assert metrics["readings/low_density/confirmed_of_alive"] < 0.1
    poses = {name: value for name, value in metrics.items() if name.startswith("readings/pose_")}
    assert poses["readings/pose_left"] == pytest.approx(1 / alive.sum())
    assert sum(poses.values()) == pytest.approx(1)


def test_there_is_no_share_of_no_features() -> None:
    faces = read_faces()
    found = read_features(Entries.of(np.zeros((len(PEOPLE), 2))), faces, high=np.zeros(2, bool), seed=0)
    assert found.columns["reading"].tolist() == ["dead", "dead"]
    assert not any(name.split("/")[-1].startswith(("confirmed", "strong", "pose")) for name in found.metrics)
    assert set(found.metrics.values()) == {0}


def test_a_judge_is_optional() -> None:
    faces = read_faces()
    entries = Entries.of(features_of(faces))
    without = read_features(entries, faces, high=np.zeros(entries.d_sae, bool), seed=0).columns
    assert np.isnan(without["monosemanticity"]).all() and np.isnan(without["monosemanticity_shuffled"]).all()
    templates = np.random.default_rng(0).normal(size=(len(PEOPLE), 8))
    faces = replace(faces, judge=templates / np.linalg.norm(templates, axis=1, keepdims=True))
    judged = read_features(entries, faces, high=np.zeros(entries.d_sae, bool), seed=0).columns
    assert judged["monosemanticity"] == pytest.approx(monosemanticity(entries, faces.judge), nan_ok=True)
    assert judged["monosemanticity_shuffled"][0] == pytest.approx(0, abs=0.05)
