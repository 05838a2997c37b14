"""What an extraction is of, agreed before the first shard: a later start goes on with the same and nothing else."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsae_mlflow.atomic import atomic_write
from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.faces.pictures import Inventory, Source
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.templates.writing import has_shard

PLAN = "plan.json"
RECIPE = 2  # one more whenever the same settings come to mean other faces or templates


@dataclass(frozen=True)
class Plan:
    """The pictures, the recognizer and the settings that shape a template set, and its cut into shards."""

    source: dict[str, Any]
    recognizer: dict[str, Any]
    settings: dict[str, Any]

    @classmethod
    def of(cls, settings: ExtractSettings, source: Source, inventory: Inventory, card: RecognizerCard) -> "Plan":
        """What these settings ask for."""
        pictures = {"name": source.name, "n_pictures": inventory.n_pictures, "digest": inventory.digest}
        elsewhere = ("faces", "recognizer", "recognizer_card")
        shaping = {name: value for name, value in settings.lasting.items() if name not in elsewhere} | {
            "recipe": RECIPE
        }
        return cls(source=pictures, recognizer=json.loads(card.to_json()), settings=shaping)

    @property
    def n_shards(self) -> int:
        """How many shards the pictures fill."""
        return -(-self.source["n_pictures"] // self.settings["shard_images"])

    def n_pictures(self, shard: int) -> int:
        """How many pictures a shard covers."""
        size = self.settings["shard_images"]
        return min(size, self.source["n_pictures"] - shard * size)

    @property
    def default_output(self) -> Path:
        """A folder that the same extraction finds again, and no other does."""
        digest = hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()
        return Path("outputs") / "extract" / digest[:12]

    def agree(self, folder: Path) -> None:
        """Note the plan in a new folder; in one that has a plan, see that it is the same.

        Raises: ValueError naming what differs.
        """
        path = folder / PLAN
        if not path.is_file():
            others = {file.name for file in folder.glob("[!.]*")} - {PLAN}  # other processes are starting too
            if others:
                raise ValueError(f"output: {folder} holds files of something else; choose an empty or new folder.")
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(dataclasses.asdict(self), indent=2))
            return
        former = json.loads(path.read_text())
        if differences := list(_differences(former, dataclasses.asdict(self))):
            raise ValueError(
                f"output: {folder.parent} holds an extraction that differs in {'; '.join(differences)}. "
                "Choose another output, or go back to what it was."
            )


@dataclass(frozen=True)
class Share:
    """Which of several processes this is, as torchrun's RANK and WORLD_SIZE say."""

    rank: int
    n_processes: int

    @classmethod
    def of_environment(cls) -> "Share":
        """The share of a process: everything where it runs alone."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    def missing(self, plan: Plan, folder: Path) -> frozenset[int]:
        """The shards that are this process' to write and are not there."""
        return frozenset(
            number for number in range(self.rank, plan.n_shards, self.n_processes) if not has_shard(folder, number)
        )


def _differences(former: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for part, values in now.items():
        for name, value in values.items():
            if (before := former.get(part, {}).get(name)) != value:
                yield f"{part} {name} ({_short(before)} there, {_short(value)} now)"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
