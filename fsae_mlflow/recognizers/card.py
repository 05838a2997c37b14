"""What one must know about a recognizer before trusting its templates, as a JSON card beside its weights."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from annotated_types import Ge, Gt, Le
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.aligned import FACE_SIZE
from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.files.documents import read_object
from fsae_mlflow.parameters import sentence


def _three(requirement: str) -> pydantic.WrapValidator:
    """One sentence about the whole field, where pydantic would speak of its elements."""

    def validate(value: Any, inner: Callable[[Any], Any]) -> Any:
        try:
            return inner(value)
        except pydantic.ValidationError:
            raise PydanticCustomError("three", "Input should be {words}", {"words": requirement}) from None

    return pydantic.WrapValidator(validate)


# Strict(False): JSON has lists where the card has tuples.
Mean = Annotated[tuple[float, float, float], pydantic.Strict(False), _three("three numbers (0…255 scale)")]
Positive = Annotated[float, Gt(0)]
Std = Annotated[
    tuple[Positive, Positive, Positive], pydantic.Strict(False), _three("three numbers above 0 (0…255 scale)")
]


@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class RecognizerCard:
    """How a recognizer wants its images, what it returns, and where it comes from.

    `input_size` is the images' height and width in pixels (8…4096). `mean` and `std` are on the 0…255 scale, in the
    order of `channels`: input = (pixel − mean) / std. `template_width` is the number of values in a template.
    `lfw_accuracy` holds the accuracy (0…1) and the command that measured it, or is null. The fields are the keys of the
    JSON file.

    Raises: pydantic.ValidationError (a ValueError) for a value of the wrong type or out of bounds.
    """

    name: str
    input_size: Annotated[int, Ge(8), Le(4096)] = FACE_SIZE
    channels: Literal["rgb", "bgr"] = "rgb"
    mean: Mean = (127.5, 127.5, 127.5)
    std: Std = (127.5, 127.5, 127.5)
    template_width: Annotated[int, Ge(2)] = 512
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
        """The card in the JSON file at `path`; missing fields take their defaults, a missing `name` the file's name.

        Raises: UserError naming the file, the field, its requirement and the value.
        """
        values = read_object(Path(path), "Recognizer card", remedy="give the path of a recognizer card")
        try:
            return cls(**{"name": Path(path).stem, **values})
        except pydantic.ValidationError as error:
            known = [field.name for field in dataclasses.fields(cls)]
            raise UserError(sentence(error, place=f" in the recognizer card {path}", known=known)) from None
