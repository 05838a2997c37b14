"""Which recognizer made templates, and whether two things come from the same one."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import fingerprint

# What decides a template, of all that a recognizer's card says. Without weights on disk the name stands for them.
DECIDING = ("input_size", "channels", "mean", "std", "template_width")
ADVICE = "use templates and an SAE of one recognizer, or give force=true to continue anyway"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """Something that templates are part of (`what`, as an error names it), and the recognizer that made them."""

    what: str
    recognizer: str = ""
    digest: str = ""

    @classmethod
    def of(cls, what: str, card: Mapping[str, Any] | None) -> "Origin":
        """The origin that a recognizer's card describes; unknown without a card."""
        if not card or "weights_sha256" not in card:
            return cls(what)
        weights = card["weights_sha256"] or card["name"]
        deciding = {name: _plain(card.get(name)) for name in DECIDING}
        return cls(what, card["name"], fingerprint({"weights": weights, **deciding}))

    def __str__(self) -> str:
        return f"{self.what} from recognizer {self.recognizer} ({self.digest})"


def require_same_recognizer(first: Origin, *others: Origin, force: bool, advice: str = ADVICE) -> None:
    """Compare origins; with `force`, or where one is unknown, a difference is a warning.

    Raises: UserError naming both recognizers, and `advice`.
    """
    for other in others:
        if not (first.digest and other.digest):
            unknown = other if first.digest else first
            logger.warning("%s: the recognizer behind it is not recorded, so it is not compared.", unknown.what)
        elif first.digest != other.digest:
            sentence = f"{first} and {other} do not belong together"
            if not force:
                raise UserError(f"{sentence}; {advice}.")
            logger.warning("%s; continuing, because force=true.", sentence)


def _plain(value: Any) -> Any:
    return [float(one) for one in value] if isinstance(value, (list, tuple)) else value
