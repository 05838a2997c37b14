"""What an image is made for: a feature, several features at once, or one without another."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.numbers import feature_numbers


@dataclass(frozen=True, order=True)
class Target:
    """Features to fire and features to keep silent, each once."""

    fired: tuple[int, ...]
    silent: tuple[int, ...] = ()

    @classmethod
    def of(cls, word: str, d_sae: int) -> "Target":
        """The target that a word names: "17", "17+40" for both at once, "17-40" for one and not the other.

        Raises: UserError for other words, for features that the SAE does not have, and for one that is named twice.
        """
        parts = re.findall("([+-]?)([^+-]*)", word.replace(" ", ""))[:-1]
        numbers = [number for _, number in parts] or [word]
        must = "features must be best, all, or numbers, or numbers joined by + or - (17+40: both; 17-40: without 40): "
        features = feature_numbers(numbers, d_sae, must=must)
        if len(features) < len(numbers) or word.lstrip().startswith("-"):
            raise UserError(
                f"features: {word!r} must begin with a feature to fire, and name each feature once; "
                "write for example 17-40."
            )
        signs = [sign for sign, _ in parts]
        return cls(
            fired=tuple(feature for feature, sign in zip(features, signs, strict=True) if sign != "-"),
            silent=tuple(feature for feature, sign in zip(features, signs, strict=True) if sign == "-"),
        )

    @property
    def feature(self) -> int:
        """The first feature to fire."""
        return self.fired[0]

    @property
    def combined(self) -> bool:
        """Whether it has more than one feature."""
        return len(self.fired) + len(self.silent) > 1

    def activation(self, features: Float[Tensor, "*n d_sae"], maxima: Float[Tensor, " d_sae"]) -> Float[Tensor, "*n"]:
        """How strongly features fire the target: one feature's activation; of several, as shares of `maxima`, their
        largest activations of real faces: the smallest of those to fire, minus the largest of those to keep silent, at
        least 0.
        """
        if not self.combined:
            return features[..., self.feature]
        fired, silent = (
            features[..., list(part)] / maxima[list(part)].clamp(min=1e-6) for part in (self.fired, self.silent)
        )
        smallest = fired.amin(dim=-1)
        return (smallest - silent.amax(dim=-1)).clamp(min=0) if self.silent else smallest

    @property
    def signed(self) -> list[tuple[int, float]]:
        """Every feature with +1 (to fire) or −1 (to keep silent)."""
        return [*((feature, 1.0) for feature in self.fired), *((feature, -1.0) for feature in self.silent)]

    def renumbered(self, features: Sequence[int]) -> "Target":
        """The target where only `features` are kept, numbered by their places."""
        fired, silent = (tuple(features.index(one) for one in part) for part in (self.fired, self.silent))
        return Target(fired, silent)

    @property
    def name(self) -> str:
        """The target as a user writes it."""
        return "+".join(map(str, self.fired)) + "".join(f"-{feature}" for feature in self.silent)

    @property
    def stem(self) -> str:
        """The beginning of its files' names."""
        fired, silent = (
            "".join(f"{sign}{one:05d}" for one in part) for sign, part in (("+", self.fired), ("-", self.silent))
        )
        return f"feature-{fired[1:]}{silent}"


def signed_sum(rows: Float[Tensor, "d_sae d"], targets: Iterable[Target]) -> Float[Tensor, "images d"]:
    """For each target the rows of its features, added or subtracted."""
    return torch.stack(
        [sum((sign * rows[feature] for feature, sign in one.signed), rows.new_zeros(())) for one in targets]
    )
