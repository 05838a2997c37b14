"""Whether an explanation is faithful: how fast the similarity falls when its features are switched off in its order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from fsae_mlflow.explanation.contributions import Contributions, cosines
from fsae_mlflow.explanation.faithfulness.bootstrap import interval_of_mean

SHARES: Float64[np.ndarray, " steps"] = np.linspace(0, 1, 41)
"""Shares of a pair's features that are switched off."""
UP_TO = 0.5
"""The area is taken up to this share: the last features leave b_dec and center, which all faces have in common."""
EXPLANATION = "contribution"

Order = Callable[[Contributions, slice, np.random.Generator], Float64[np.ndarray, " n"]]
ORDERS: Mapping[str, Order] = {
    EXPLANATION: lambda found, place, _: -found.value[place],
    "activation": lambda found, place, _: -(found.first[place] + found.second[place]),
    "shared activation": lambda found, place, _: -(found.first * found.second * found.squared)[place],
    "random": lambda _, place, generator: generator.random(place.stop - place.start),
}
"""Of each entry of a pair, a number; the smallest is switched off first."""


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """The cosine of the decoded templates of each pair after SHARES of its features were switched off, by order."""

    genuine: Bool[np.ndarray, " pairs"]
    curves: Mapping[str, Float64[np.ndarray, "pairs steps"]]

    @property
    def areas(self) -> dict[str, Float64[np.ndarray, " pairs"]]:
        """The mean cosine of each pair over the first half of its curve, by order: the smaller, the more faithful."""
        inside = SHARES <= UP_TO + 1e-9
        return {
            name: np.trapezoid(curve[:, inside], SHARES[inside], axis=1) / UP_TO for name, curve in self.curves.items()
        }

    @property
    def metrics(self) -> dict[str, float]:
        """Mean areas of genuine and of impostor pairs, and what the explanation's is below each other order's, with the
        95 % interval of pairs drawn again (bootstrap, 2,000 draws).
        """
        found: dict[str, float] = {}
        for kind, mask in (("genuine", self.genuine), ("impostor", ~self.genuine)):
            if not mask.any():
                continue
            areas = {name: area[mask] for name, area in self.areas.items()}
            for name, area in areas.items():
                prefix = f"deletion/{kind}/{name.replace(' ', '_')}"
                found[prefix] = float(area.mean())
                if name != EXPLANATION:
                    found |= interval_of_mean(area - areas[EXPLANATION], f"{prefix}_lead")
        return found


def deletion(found: Contributions, *, genuine: Bool[np.ndarray, " pairs"], seed: int) -> Deletion:
    """Switch off the features of each pair, on both faces at once, in each of ORDERS."""
    generator = np.random.default_rng(seed)
    curves = {name: np.zeros((len(found), len(SHARES))) for name in ORDERS}
    for pair in range(len(found)):
        place = found.of_pair(pair)
        n_off = np.round(SHARES * (place.stop - place.start)).astype(np.int64)
        for name, order in ORDERS.items():
            switched_off = np.argsort(order(found, place, generator), kind="stable")
            curves[name][pair] = cosines(*found.switched_off(pair, switched_off, n_off))
    return Deletion(genuine=genuine, curves=curves)
