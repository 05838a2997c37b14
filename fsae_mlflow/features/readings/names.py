"""Features named by their number, or by what is confirmed of them: the words of `without`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from jaxtyping import Bool, Shaped

from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.numbers import feature_numbers

KINDS = ("attribute", "identity", "pose")
N_LISTED = 5
N_NEAREST = 10
"""Names that an error lists."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """The features that words mean, and the words: names as pairs of kind and name, and numbers."""

    features: Bool[np.ndarray, " d_sae"]
    names: list[tuple[str, str]]
    numbers: list[str]


def named_features(
    without: str, d_sae: int, known: Mapping[str, Shaped[np.ndarray, " d_sae"]] | None, *, advice: str
) -> Named:
    """The features that `without` names: numbers, attribute:NAME, identity:NAME and pose:NAME, by commas, in any mix.

    `known` has for each kind the name that is confirmed of each feature, "" where none is; None where it is not known
    what features mean: then `advice` says what to do about it. A name stands for all features of which it is confirmed,
    and that of a number (age) for both signs.

    Raises: UserError for a feature that does not exist, for names that are not known, and for a name that no feature
    has; it lists those that some have, the nearest first.
    """
    items = [item.strip() for item in without.split(",")]
    names = [(kind.strip(), name.strip()) for kind, _, name in (item.partition(":") for item in items if ":" in item)]
    numbers = [item for item in items if ":" not in item]
    must = f"without must be {', '.join(f'{kind}:NAME' for kind in KINDS)}, or "
    chosen = np.zeros(d_sae, dtype=bool)
    chosen[feature_numbers(numbers, d_sae, must=must)] = True
    for kind, name in names:
        if kind not in KINDS:
            raise UserError(f"{must}numbers separated by commas; one is {kind + ':' + name!r}.")
        if known is None:
            raise UserError(f"without={kind}:{name} needs to know what the features mean; {advice}")
        chosen |= _confirmed(kind, name, np.asarray(known[kind]).astype(str))
    return Named(features=chosen, names=names, numbers=numbers)


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


def listed(names: Sequence[str]) -> str:
    """The first five names, with commas between, and … where there are more."""
    return ", ".join([*names[:N_LISTED], *(["…"] if len(names) > N_LISTED else [])])
