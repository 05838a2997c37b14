"""What readings claim of planted features, held against what the features mean."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fsae_mlflow.features.readings.judgments import PROPERTIES, ReadFaces
from fsae_mlflow.features.readings.sentences import Readings, read_features
from tests.features.planted import PlantedFaces, PlantedFeatures, Truth

Claim = tuple[str, str]

POSES = {"right", "left", "turned", "frontal"}
GOES_WITH = {"sharpness": {"norm"}, "norm": {"sharpness"}, "interocular": {"face_size"}}
"""Properties that were planted to rise with one another."""
OF_MEN_ONLY = {"Beard", "Bald"}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The claims of one feature's reading: whether the meaning is among them, and those that are not true."""

    truth: Truth
    claimed: frozenset[Claim]

    @property
    def found(self) -> bool:
        return (self.truth.kind, self.truth.name) in self.claimed

    @property
    def wrong(self) -> frozenset[Claim]:
        return frozenset(claim for claim in self.claimed if not holds(claim, self.truth))


def read_planted(faces: PlantedFaces, features: PlantedFeatures) -> Readings:
    """The readings of planted features; people are named by their codes."""
    read = ReadFaces(
        people=faces.people,
        names=[str(person) for person in range(faces.people[-1] + 1)],
        confirm=faces.confirm,
        properties=faces.properties,
        booleans=faces.labels,
        numbers=faces.numbers,
    )
    return read_features(features.entries, read, high=np.zeros(len(features.truths), bool), seed=0)


def verdicts(columns: Mapping[str, np.ndarray], features: PlantedFeatures) -> list[Verdict]:
    """The verdict on each feature, given the readings' columns, where identities are codes of people."""
    return [
        Verdict(truth=truth, claimed=frozenset(claims(columns, feature)))
        for feature, truth in enumerate(features.truths)
    ]


def claims(columns: Mapping[str, np.ndarray], feature: int) -> Iterator[Claim]:
    """What the reading of a feature claims: attribute, number, pose, identity, and properties with their sign."""
    own = {name: values[feature] for name, values in columns.items()}
    if own["attribute_confirmed"]:
        name = str(own["attribute"])
        yield ("number" if name[-2:] in (" +", " -", " −") else "attribute", name.replace("−", "-"))
    if own["pose"] in POSES:
        yield "pose", str(own["pose"])
    if own["identity_confirmed"]:
        yield "identity", str(own["identity"])
    for name in PROPERTIES:
        if own[f"{name}_confirmed"] and abs(own[f"{name}_rho"]) >= 0.1:
            yield "quality", f"{name} {'+' if own[f'{name}_rho'] > 0 else '-'}"


def holds(claim: Claim, truth: Truth) -> bool:
    """Whether a claim is true of a feature, by how the faces were planted."""
    name, _, sign = truth.name.partition(" ")
    true = {(str(truth.kind), truth.name)}
    if claim[0] == "identity" and truth.kind != "identity":
        # The noise of people is the same on all faces of a person: that a feature fires for one of them is true.
        return truth.noise_of_people > 0
    if truth.kind == "attribute" and name in OF_MEN_ONLY:
        true |= {("attribute", "Male")}
    if truth.kind == "pose":
        turned = name != "frontal"
        true |= {("pose", "turned" if turned else "frontal"), ("quality", f"face_size {'-' if turned else '+'}")}
    if truth.kind == "quality":
        true |= {("quality", f"{other} {sign}") for other in GOES_WITH[name]}
        true |= {("pose", "frontal" if sign == "+" else "turned")}
    return claim in true
