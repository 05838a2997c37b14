"""What an explanation says of one pair, as plain numbers: the figure draws it, and the JSON file holds it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from fsae_mlflow.files.atomic import atomic_write


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """The decision: a pair is accepted where its cosine is above `cosine`.

    It accepts the share `far` of `n_impostors` impostor pairs, and `tar` of `n_genuine` genuine pairs.
    """

    cosine: float
    far: float
    tar: float
    n_impostors: int
    n_genuine: int


@dataclass(frozen=True, kw_only=True)
class FeaturePart:
    """What one feature contributes to the cosine of the decoded templates.

    `first`, `second`: its activations on both faces. `without`: the cosine where it alone is switched off.
    """

    feature: int
    reading: str
    contribution: float
    first: float
    second: float
    without: float


@dataclass(frozen=True, kw_only=True)
class FeaturePair:
    """What a feature of the first face and another feature of the second one contribute together."""

    first: int
    second: int
    contribution: float


@dataclass(frozen=True, kw_only=True)
class SwitchedOff:
    """The decoded templates without some features: the cosine that their formula gives, and the one after they are
    encoded and decoded again; `n_firing_again` of these features fire then on either face.
    """

    features: list[int]
    cosine: float
    read_again: float
    n_firing_again: int


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why the similarity of two faces is what it is.

    `similarity`: the cosine of the original templates. `decoded`: of the decoded ones, which is `constant` (what all
    decoded templates have in common) and the sum over the features that fire on either face; `unexplained` is what the
    original one is above it. `genuine`: whether both are one person, where that is known. `threshold`: for original
    templates; `decoded_threshold`: for decoded ones, at the same FAR. `features`: all, the one that adds most first;
    `pairs`: the strongest of two different features. `counterfactual`: features switched off one after the other.
    `n_until_rejected`: how many of them must be, in this order, until the decoded templates are rejected; None where
    they are rejected anyway, or never.
    """

    name: str
    first: str
    second: str
    genuine: bool | None
    similarity: float
    decoded: float
    constant: float
    unexplained: float
    threshold: Threshold
    decoded_threshold: Threshold
    features: list[FeaturePart]
    pairs: list[FeaturePair]
    counterfactual: list[SwitchedOff]
    n_until_rejected: int | None

    @property
    def accepted(self) -> bool:
        """Whether the original templates are accepted."""
        return self.similarity > self.threshold.cosine

    def shared(self, n: int) -> list[FeaturePart]:
        """The features that add most, at most `n`."""
        return [one for one in self.features[:n] if one.contribution > 0]

    def opposing(self, n: int) -> list[FeaturePart]:
        """The features that take most away, at most `n`."""
        return [one for one in self.features[::-1][:n] if one.contribution < 0]


def write_explanation(explanation: Explanation, path: Path) -> Path:
    """Write an explanation as JSON."""
    values = dataclasses.asdict(explanation) | {"accepted": explanation.accepted}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return path
