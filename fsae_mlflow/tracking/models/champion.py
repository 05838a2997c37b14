"""Which version of a registered model has the alias `champion`: one rule for every stage that registers.

A version takes `champion` where its fvu on held-out people is below 1 and below the champion's, with an L0 within the
registered model's limit (its tag `fsae.max_l0`), on the same template set, recognizer and held-out people. The former
champion gets `champion_previous`. Any other new version gets `challenger`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsae_mlflow.provenance import Origin

CHAMPION, FORMER, CHALLENGER = "champion", "champion_previous", "challenger"
SLACK = 1.05
"""The limit is that much above the first champion's L0: equal settings give an L0 that differs by a few percent."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the rule reads of an SAE: `fvu` and `l0` on held-out people (nan without), and what they were measured on.

    `people` says which people were held out; `recognizer` is a digest, "" where it is unknown.
    """

    fvu: float
    l0: float
    templates: str
    recognizer: str
    people: str

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Standing":
        """The standing of the SAE that was saved with this config.json."""
        metrics, settings, templates = config.get("metrics", {}), config["settings"], config["templates"]
        return cls(
            fvu=metrics.get("heldout/fvu", math.nan),
            l0=metrics.get("heldout/l0", math.nan),
            templates=templates.get("digest", ""),
            recognizer=Origin.of("", templates.get("recognizer")).digest,
            people=f"holdout={settings.get('holdout')}, seed={settings.get('seed')}",
        )

    @property
    def counts(self) -> bool:
        """Whether it can be champion at all: measured on held-out people, and better than the mean template."""
        return self.fvu < 1


@dataclass(frozen=True)
class Verdict:
    """The alias that a new version gets, and the reason in words."""

    alias: str
    reason: str

    def __str__(self) -> str:
        return f"{self.alias}: {self.reason}"


def judge(new: Standing, champion: Standing | None, *, max_l0: float | None) -> Verdict:
    """The alias of a new version beside the present champion (None: there is none) under the model's L0 limit."""
    beaten = _why_not(new, champion, max_l0)
    if beaten:
        return Verdict(CHALLENGER, beaten)
    if champion is None or not champion.counts:
        return Verdict(CHAMPION, f"it is the first with a held-out fvu below 1 ({new.fvu:.4g}, at L0 {new.l0:.4g})")
    return Verdict(CHAMPION, f"its held-out fvu {new.fvu:.4g} is below the champion's {champion.fvu:.4g}")


def _why_not(new: Standing, champion: Standing | None, max_l0: float | None) -> str:
    """Why a version does not take the alias; empty where it does."""
    if math.isnan(new.fvu):
        return "it was not measured on held-out people; train with holdout above 0"
    if not new.counts:
        return f"its held-out fvu {new.fvu:.4g} is not below 1, so the mean template describes faces as well"
    if champion is not None:
        if new.recognizer != champion.recognizer:
            return "the champion is of another recognizer; give another model_name to have a champion of this one"
        if new.templates != champion.templates:
            return "the champion is of another template set; give another model_name to have a champion of this one"
        if champion.counts and new.people != champion.people:
            return f"the champion was measured on other held-out people; train with its {champion.people} to compare"
    if max_l0 is not None and new.l0 > max_l0:
        return f"its held-out L0 {new.l0:.4g} is above this model's limit {max_l0:.4g} (tag fsae.max_l0)"
    if champion is not None and champion.counts and not new.fvu < champion.fvu:
        return f"its held-out fvu {new.fvu:.4g} is not below the champion's {champion.fvu:.4g}"
    return ""
