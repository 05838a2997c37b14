"""The plan of an extraction, written before the first shard: only an extraction with the same plan may continue it."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsae_mlflow.errors import UserError
from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.faces.pictures import Inventory, Source
from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.files.documents import read_object
from fsae_mlflow.machine.ranks import Ranks
from fsae_mlflow.parameters import fingerprint
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.templates.writing import has_shard

PLAN = "plan.json"
RECIPE = 2  # add one when the same settings begin to give other faces or templates


@dataclass(frozen=True)
class Plan:
    """The pictures, the recognizer and the settings that decide a template set, which is written in shards."""

    source: dict[str, Any]
    recognizer: dict[str, Any]
    settings: dict[str, Any]
    files: str = ""
    """The digest of the files' sizes and modification times; it is compared, and not part of the fingerprint."""

    @classmethod
    def of(cls, settings: ExtractSettings, source: Source, inventory: Inventory, card: RecognizerCard) -> "Plan":
        """The plan for these settings."""
        elsewhere = ("faces", "recognizer", "recognizer_card")
        values = {name: value for name, value in settings.deciding.items() if name not in elsewhere}
        return cls(
            source={"name": source.name, "n_pictures": inventory.n_pictures, "digest": inventory.digest},
            recognizer=json.loads(card.to_json()),
            settings=values | {"recipe": RECIPE},
            files=inventory.files,
        )

    @property
    def fingerprint(self) -> str:
        """A short hash of the plan."""
        return fingerprint(self._parts)

    @property
    def _parts(self) -> dict[str, Any]:
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "files"}

    @property
    def shard_images(self) -> int:
        """The number of pictures in every shard but the last."""
        return self.settings["shard_images"]

    @property
    def n_shards(self) -> int:
        """The number of shards."""
        return -(-self.source["n_pictures"] // self.shard_images)

    def n_pictures(self, shard: int) -> int:
        """The number of pictures in a shard."""
        return min(self.shard_images, self.source["n_pictures"] - shard * self.shard_images)

    def missing(self, folder: Path, ranks: Ranks) -> list[int]:
        """The rank's shards that are not in the folder yet, in order."""
        return [shard for shard in ranks.turns(self.n_shards) if not has_shard(folder, shard)]

    def agree(self, folder: Path) -> None:
        """Write the plan into a new folder, or check that a folder's plan is the same.

        Plans of version 0.1 do not say when the files changed.

        Raises: UserError naming what differs.
        """
        path, plan = folder / PLAN, dataclasses.asdict(self)
        if not path.is_file():
            if {file.name for file in folder.glob("[!.]*")} - {PLAN}:  # another process may have just written the plan
                raise UserError(f"output: {folder} holds other files; choose an empty or new folder.")
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(plan, indent=2))
            return
        former = read_object(path, "output:", remedy="choose another output", fields=dict.fromkeys(self._parts, dict))
        if differences := list(_differences(former, self._parts)):
            raise UserError(
                f"output: {folder.parent} holds an extraction with other inputs or options ({'; '.join(differences)}). "
                "Choose another output, or use the former values."
            )
        if self.files and former.get("files", self.files) != self.files:
            raise UserError(
                f"faces: files of {self.source['name']} changed in size or modification time since the extraction in "
                f"{folder.parent} began. Choose another output; or, if they are only copies of the same pictures, "
                f'delete the entry "files" in {path}.'
            )


def _differences(former: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for part, values in now.items():
        for name, value in values.items():
            if (before := former.get(part, {}).get(name)) != value:
                yield f"{part} {name} ({_short(before)} there, {_short(value)} now)"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
