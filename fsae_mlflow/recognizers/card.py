"""What one must know about a recognizer before trusting its templates, as a JSON card beside its weights."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fsae_mlflow.atomic import atomic_write

HALF = (127.5, 127.5, 127.5)
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda value: isinstance(value, str), "a string"),
    "input_size": (lambda value: _is_whole(value) and value >= 8, "a whole number of pixels, at least 8"),
    "channels": (lambda value: value in ("rgb", "bgr"), '"rgb" or "bgr"'),
    "mean": (lambda value: _are_three(value), "three numbers (0…255 scale)"),
    "std": (lambda value: _are_three(value) and min(value) > 0, "three numbers above 0 (0…255 scale)"),
    "template_width": (lambda value: _is_whole(value) and value >= 2, "a whole number, at least 2"),
    "l2_normalized": (lambda value: isinstance(value, bool), "true or false"),
    "licence": (lambda value: isinstance(value, str), "a string"),
    "source": (lambda value: isinstance(value, str), "a string"),
    "training_data": (lambda value: isinstance(value, str), "a string"),
    "weights_sha256": (lambda value: isinstance(value, str), "a string"),
    "lfw_accuracy": (lambda value: value is None or isinstance(value, dict), "an object or null"),
    "notes": (lambda value: isinstance(value, str), "a string"),
}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_three(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(one) in (int, float) for one in value)


@dataclass(frozen=True, kw_only=True)
class RecognizerCard:
    """How a recognizer wants its images, what it returns, and where it comes from.

    `mean` and `std` are on the 0…255 scale, in the order of `channels`: input = (pixel − mean) / std. `template_width`
    is the number of values of a template; `lfw_accuracy` holds the accuracy (0…1) and the command that measured it, if
    anyone did.
    """

    name: str
    input_size: int = 112
    channels: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    template_width: int = 512
    l2_normalized: bool = False
    licence: str = "unknown: treat as research only"
    source: str = ""
    training_data: str = ""
    weights_sha256: str = ""
    lfw_accuracy: dict[str, Any] | None = None
    notes: str = ""

    def to_json(self) -> str:
        """The card as indented JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    def write(self, path: Path) -> None:
        """Write the card as JSON at `path`, whole or not at all."""
        with atomic_write(path) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def from_json(cls, path: Path) -> "RecognizerCard":
        """The card in the JSON file at `path`; fields left out take their defaults, a missing `name` the file's name.

        Raises: ValueError naming the file and what is wrong with it.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ValueError(f"Recognizer card {path} does not exist; give the path of a JSON file.") from error
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"Recognizer card {path} is not readable JSON ({error}).") from error
        if not isinstance(values, dict):
            raise ValueError(f"Recognizer card {path} must hold one JSON object; it holds a {type(values).__name__}.")
        if unknown := sorted(values.keys() - RULES.keys()):
            raise ValueError(
                f"Recognizer card {path} has unknown fields {', '.join(unknown)}; known are {', '.join(RULES)}."
            )
        for field, value in values.items():
            holds, words = RULES[field]
            if not holds(value):
                raise ValueError(f"{field} in the recognizer card {path} must be {words}; it is {value!r}.")
        three = {field: tuple(map(float, values[field])) for field in ("mean", "std") if field in values}
        return cls(**{"name": Path(path).stem, **values, **three})


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
