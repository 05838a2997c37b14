"""What the features mean, as a registered model carries it: readings.json beside its weights."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.files.documents import parse_json

READINGS_FILE = "readings.json"


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """Of each feature its sentence, and the names by which `without` finds it ("" where nothing is confirmed).

    `templates` is the digest of the template set that they were read on.
    """

    templates: str
    reading: list[str]
    attribute: list[str]
    identity: list[str]
    pose: list[str]

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), ensure_ascii=False), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Shipped":
        """What `write` wrote.

        Raises: UserError naming the file for anything else.
        """
        return cls.of(parse_json(path.read_bytes(), f"readings: {path}", remedy="run describe on this model again"))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Shipped":
        """The object in the JSON file; later versions may add fields."""
        try:
            return cls(**{name: values[name] for name in cls.__dataclass_fields__})
        except KeyError as error:
            raise UserError(
                f"readings: {READINGS_FILE} of the model has no {error}; run describe on it again."
            ) from error
