"""Which features `without` leaves out of what is decoded: by number, or by what they are read as."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Shaped

from fsae_mlflow.features.readings.judgments import POSES
from fsae_mlflow.features.readings.names import listed, named_features

ADVICE = "give readings (what describe wrote of this SAE), or the features' numbers."


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Features to leave out, the attributes that they stand for, and the selection in words.

    `attributes` are those that were named; where none was, those that are confirmed of the features (`inferred`).
    """

    features: Bool[np.ndarray, " d_sae"]
    attributes: list[str]
    words: str
    inferred: bool = False

    @property
    def n(self) -> int:
        """The number of features."""
        return int(self.features.sum())

    @property
    def label(self) -> str:
        """What is decoded, in words."""
        return f"Decoded without {self.n:,} feature{'s' * (self.n != 1)} ({self.words})"


def select_features(
    without: str, d_sae: int, readings: Mapping[str, Shaped[np.ndarray, " d_sae"]] | None = None
) -> Selection:
    """The features that `without` names: numbers, attribute:NAME, identity:NAME and pose:NAME, by commas, in any mix.

    `readings` are the columns of features.parquet; a name stands for all features of which it is confirmed there. An
    attribute that is a number (age) stands for both signs.

    Raises: UserError for a feature that does not exist, for names without readings, and for a name that no feature has;
    it lists those that some have, the nearest first.
    """
    known = None if readings is None else {kind: name(readings) for kind, name in NAMES.items()}
    named = named_features(without, d_sae, known, advice=ADVICE)
    attributes = list(dict.fromkeys(name for kind, name in named.names if kind == "attribute"))
    inferred = known is not None and not attributes
    if known is not None and not attributes:
        attributes = sorted(set(known["attribute"][named.features].astype(str)) - {""})
    said = [*(f"{kind} {name}" for kind, name in named.names), *named.numbers]
    return Selection(
        features=named.features,
        attributes=attributes,
        words=listed(said),
        inferred=inferred,
    )


NAMES = {
    "attribute": lambda readings: np.where(readings["attribute_confirmed"], readings["attribute"], ""),
    "identity": lambda readings: np.where(readings["identity_confirmed"], readings["identity"], ""),
    "pose": lambda readings: np.where(np.isin(readings["pose"].astype(str), POSES), readings["pose"], ""),
}
"""The name that is confirmed of each feature, by kind; "" where none is."""
