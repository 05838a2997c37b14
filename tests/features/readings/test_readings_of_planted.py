"""Readings find what was planted, and claim nothing of noise. `benchmarks/planted.py` has the rates over more faces."""

from dataclasses import replace

import numpy as np
import pytest

from tests.features.planted import PlantedFaces, PlantedFeatures, Truth, every_truth, planted_faces, planted_features
from tests.features.verdicts import Verdict, holds, read_planted, verdicts


@pytest.fixture(scope="module")
def faces() -> PlantedFaces:
    return planted_faces(600)


@pytest.fixture(scope="module")
def features(faces: PlantedFaces) -> PlantedFeatures:
    return planted_features(faces, every_truth(faces, strengths=(0.8,), densities=(0.1,), n_noise=20))


@pytest.fixture(scope="module")
def columns(faces: PlantedFaces, features: PlantedFeatures) -> dict[str, np.ndarray]:
    return read_planted(faces, features).columns


@pytest.fixture(scope="module")
def judged(columns: dict[str, np.ndarray], features: PlantedFeatures) -> list[Verdict]:
    return verdicts(columns, features)


@pytest.mark.parametrize(
    ("kind", "at_least"), [("attribute", 0.75), ("number", 0.75), ("pose", 0.85), ("quality", 0.85), ("identity", 0.85)]
)
def test_planted_meanings_are_found(judged: list[Verdict], kind: str, at_least: float) -> None:
    found = [verdict.found for verdict in judged if verdict.truth.kind == kind]
    assert np.mean(found) >= at_least


def test_what_is_claimed_is_true(judged: list[Verdict]) -> None:
    meaningful = [bool(verdict.wrong) for verdict in judged if verdict.truth.kind != "noise"]
    noise = [bool(verdict.wrong) for verdict in judged if verdict.truth.kind == "noise"]
    assert np.mean(meaningful) <= 0.04
    assert np.mean(noise) <= 0.01


def test_faces_in_the_place_of_people_make_wrong_readings(faces: PlantedFaces, features: PlantedFeatures) -> None:
    """The noise is hard enough: the same rules claim much of it where they do not know who is on the faces."""
    alone = verdicts(read_planted(replace(faces, people=np.arange(len(faces.people))), features).columns, features)
    noise = [bool(verdict.wrong) for verdict in alone if verdict.truth.noise_of_people == 1]
    assert np.mean(noise) >= 0.05


def test_what_varies_with_nothing_is_invariant(columns: dict[str, np.ndarray], features: PlantedFeatures) -> None:
    attributes = features.of("attribute")
    assert np.isin(columns["pose"][attributes], ["invariant", "undetermined"]).mean() >= 0.9
    assert (columns["quality"][features.of("pose")] != "equivariant").mean() >= 0.9
    assert (columns["pose"][features.of("pose")] != "invariant").all()
    assert (columns["quality"][features.of("quality")] == "equivariant").mean() >= 0.9


def test_the_dead_are_dead_and_noise_is_unread(columns: dict[str, np.ndarray], features: PlantedFeatures) -> None:
    assert (columns["reading"][features.of("dead")] == "dead").all()
    of_faces = np.array([truth.kind == "noise" and truth.noise_of_people == 0 for truth in features.truths])
    assert (columns["reading"][of_faces] == "unread").mean() >= 0.98


def test_a_pair_of_attributes_is_told_apart(columns: dict[str, np.ndarray], features: PlantedFeatures) -> None:
    """Only women wear heavy makeup and only men have beards; what is planted remains, given the other."""
    for name, other in (("Heavy_Makeup", "Male"), ("Beard", "Male")):
        own = np.array([truth.name == name for truth in features.truths])
        assert (columns["attribute"][own] == name).all()
        assert (columns["confounder"][own] == other).all()
        given = columns["attribute_rho_given_confounder"][own]
        assert (given > 0.2).all() and (given < columns["attribute_rho"][own]).all()


@pytest.mark.parametrize(
    ("claim", "truth", "true"),
    [
        (("attribute", "Male"), Truth("attribute", "Male"), True),
        (("attribute", "Male"), Truth("attribute", "Beard"), True),
        (("attribute", "Beard"), Truth("attribute", "Male"), False),
        (("pose", "turned"), Truth("pose", "left"), True),
        (("pose", "right"), Truth("pose", "left"), False),
        (("pose", "frontal"), Truth("pose", "left"), False),
        (("quality", "norm -"), Truth("quality", "sharpness -"), True),
        (("quality", "norm +"), Truth("quality", "sharpness -"), False),
        (("identity", "7"), Truth("identity", "7", noise_of_people=0.5), True),
        (("identity", "8"), Truth("identity", "7", noise_of_people=0.5), False),
        (("identity", "8"), Truth("noise", noise_of_people=0.5), True),
        (("identity", "8"), Truth("noise"), False),
        (("attribute", "Male"), Truth("noise", noise_of_people=1.0), False),
    ],
)
def test_the_verdict_on_a_claim(claim: tuple[str, str], truth: Truth, true: bool) -> None:
    assert holds(claim, truth) == true
