import numpy as np
import pytest

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.suppression import select_features

D_SAE = 8


def readings() -> dict[str, np.ndarray]:
    return {
        "attribute": np.array(["Male", "Male", "Heavy_Makeup", "age +", "age −", "Bald", "", "Male"], object),
        "attribute_confirmed": np.array([1, 1, 1, 1, 1, 0, 0, 0], bool),
        "identity": np.array(["ann", "bob", "ann", "", "ann", "eve", "", ""], object),
        "identity_confirmed": np.array([1, 0, 0, 0, 1, 0, 0, 0], bool),
        "pose": np.array(["invariant", "right", "left", "right", "", "turned", "undetermined", "unknown"], object),
    }


@pytest.mark.parametrize(
    ("without", "features", "attributes"),
    [
        ("6, 2,6", [2, 6], ["Heavy_Makeup"]),
        ("6", [6], []),
        ("attribute:Male", [0, 1], ["Male"]),
        (" attribute:Male ,7, attribute: Heavy_Makeup", [0, 1, 2, 7], ["Male", "Heavy_Makeup"]),
        ("attribute:age", [3, 4], ["age"]),
        ("attribute:age +", [3], ["age +"]),
        ("identity:ann", [0, 4], ["Male", "age −"]),
        ("pose:right,attribute:Male", [0, 1, 3], ["Male"]),
    ],
)
def test_numbers_and_confirmed_readings_select_features(
    without: str, features: list[int], attributes: list[str]
) -> None:
    found = select_features(without, D_SAE, readings())
    assert np.flatnonzero(found.features).tolist() == features and found.n == len(features)
    assert found.attributes == attributes and found.inferred == ("attribute:" not in without)


def test_a_selection_is_called_what_the_user_named() -> None:
    assert select_features("attribute:Male", D_SAE, readings()).label == "Decoded without 2 features (attribute Male)"
    assert select_features("3", D_SAE).label == "Decoded without 1 feature (3)"
    assert select_features("0,1,2,3,4,5", D_SAE).words == "0, 1, 2, 3, 4, …"
    assert select_features("0,1,2,3,4", D_SAE).attributes == []


@pytest.mark.parametrize(
    ("without", "known", "sentence"),
    [
        ("8", True, r"numbers from 0 to 7 separated by commas \(d_sae is 8\); one is '8'"),
        ("-1", True, "one is '-1'"),
        ("1,,2", True, "one is ''"),
        ("Male", True, "without must be attribute:NAME.*one is 'Male'"),
        ("colour:red", True, "without must be attribute:NAME.*one is 'colour:red'"),
        ("attribute:Male", False, "give readings .*or the features' numbers"),
        ("attribute:Make_up", True, r"no feature has the confirmed attribute 'Make_up'; there are Heavy_Makeup, Male"),
        ("attribute:Bald", True, "no feature has the confirmed attribute 'Bald'"),
        ("attribute:", True, "no feature has the confirmed attribute ''"),
        ("identity:bob", True, r"no feature has the confirmed identity 'bob'; there are ann\."),
        ("pose:invariant", True, r"no feature has the confirmed pose 'invariant'; there are"),
    ],
)
def test_what_no_feature_is_ends_in_one_sentence(without: str, known: bool, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        select_features(without, D_SAE, readings() if known else None)


def test_without_any_confirmed_name_numbers_are_the_way() -> None:
    nothing = readings() | {"attribute_confirmed": np.zeros(D_SAE, bool)}
    with pytest.raises(UserError, match=r"none has a confirmed attribute: give the features' numbers\."):
        select_features("attribute:Male", D_SAE, nothing)
