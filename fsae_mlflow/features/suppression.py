"""Which features `without` leaves out of what is decoded: by number, or by what they are read as."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from jaxtyping import Bool, Shaped

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.judgments import POSES
from fsae_mlflow.sae.numbers import feature_numbers

N_SAID, N_NEAREST = 5, 10
"""Names that a label and an error list."""


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
    items = [item.strip() for item in without.split(",")]
    named = [tuple(part.strip() for part in item.split(":", 1)) for item in items if ":" in item]
    words = [item for item in items if ":" not in item]
    must = "without must be attribute:NAME, identity:NAME, pose:NAME, or "
    chosen = np.zeros(d_sae, dtype=bool)
    chosen[feature_numbers(words, d_sae, must=must)] = True
    for kind, name in named:
        if kind not in NAMES:
            raise UserError(f"{must}numbers separated by commas; one is {kind + ':' + name!r}.")
        if readings is None:
            raise UserError(
                f"without={kind}:{name} needs to know what the features mean; give readings (what describe wrote of "
                "this SAE), or the features' numbers."
            )
        chosen |= _confirmed(kind, name, NAMES[kind](readings).astype(str))
    attributes = list(dict.fromkeys(name for kind, name in named if kind == "attribute"))
    inferred = not attributes and readings is not None
    if inferred:
        attributes = sorted(set(NAMES["attribute"](readings)[chosen].astype(str)) - {""})
    said = [*(f"{kind} {name}" for kind, name in named), *words]
    return Selection(
        features=chosen,
        attributes=attributes,
        words=", ".join(said[:N_SAID] + ["…"] * (len(said) > N_SAID)),
        inferred=inferred,
    )


NAMES = {
    "attribute": lambda readings: np.where(readings["attribute_confirmed"], readings["attribute"], ""),
    "identity": lambda readings: np.where(readings["identity_confirmed"], readings["identity"], ""),
    "pose": lambda readings: np.where(np.isin(readings["pose"].astype(str), POSES), readings["pose"], ""),
}
"""The name that is confirmed of each feature, by kind; "" where none is."""


def _confirmed(kind: str, name: str, names: Shaped[np.ndarray, " d_sae"]) -> Bool[np.ndarray, " d_sae"]:
    found = np.isin(names, (name, f"{name} +", f"{name} −")) & (names != "")
    if not found.any():
        others = sorted(set(names.tolist()) - {""})
        nearest = get_close_matches(name, others, n=N_NEAREST, cutoff=0.0)
        listed = f"{', '.join(nearest)}{' …' if len(others) > len(nearest) else ''}"
        raise UserError(
            f"without: no feature has the confirmed {kind} {name!r}; "
            + (f"there are {listed}." if others else f"none has a confirmed {kind}: give the features' numbers.")
        )
    return found
