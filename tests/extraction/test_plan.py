"""A plan keeps its fingerprint from version to version, so that former outputs are found again."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fsae_mlflow.errors import UserError
from fsae_mlflow.extraction.plan import Plan
from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.faces.pictures import Inventory, Picture
from fsae_mlflow.machine.ranks import Ranks
from fsae_mlflow.recognizers.card import RecognizerCard

INVENTORY = Inventory(5000, "0123456789abcdef")
CARD = RecognizerCard(name="tiny", template_width=8)


class Faces:
    name = "faces"
    attributes: Mapping[str, str] = {}

    def __iter__(self) -> Iterator[Picture]:
        return iter(())


def plan_for(**given: object) -> Plan:
    return Plan.of(ExtractSettings(**given), Faces(), INVENTORY, CARD)


def test_the_fingerprint_is_that_of_version_0_1() -> None:
    """Both hashes were made with version 0.1."""
    assert plan_for().fingerprint == "44b4c0def440"
    given = {"faces": "faces", "min_face": 24, "flip": True}
    assert plan_for(**given).fingerprint == "70b3851c4e68"
    execution = {"batch_size": 3, "workers": 2, "threads": 5, "device": "cpu", "output": "x"}
    assert plan_for(**given, **execution) == plan_for(**given)


def test_the_plan_is_written_as_in_version_0_1() -> None:
    plan = plan_for(faces="faces", min_face=24, flip=True)
    assert plan.source == {"name": "faces", "n_pictures": 5000, "digest": "0123456789abcdef"}
    assert plan.recognizer["name"] == "tiny" and plan.recognizer["template_width"] == 8
    assert list(plan.settings.items()) == [
        ("aligned", False),
        ("face", "central"),
        ("no_face", "record"),
        ("min_face", 24.0),
        ("min_face_share", 0.0),
        ("enlarge", 1),
        ("pad", 0.0),
        ("flip", True),
        ("jpeg_quality", 95),
        ("shard_images", 2048),
        ("recipe", 2),
    ]
    assert plan_for().settings["enlarge"] == 2 and plan_for().settings["pad"] == 0.2  # orl


def test_processes_take_the_missing_shards_in_turn(tmp_path: Path) -> None:
    plan = plan_for(shard_images=600)
    assert (plan.n_shards, plan.n_pictures(0), plan.n_pictures(8)) == (9, 600, 200)
    (tmp_path / "templates-00002.parquet").touch()
    assert plan.missing(tmp_path, Ranks()) == [0, 1, 3, 4, 5, 6, 7, 8]
    assert plan.missing(tmp_path, Ranks(2, 4)) == [6]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not readable JSON"),
        ("[" * 100_000, "nested"),
        ('{"source": 3, "recognizer": {}, "settings": {}}', "must have source of type object; it is 3"),
    ],
)
def test_a_damaged_plan_is_refused_by_name(content: str, sentence: str, tmp_path: Path) -> None:
    plan_for().agree(tmp_path)
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(UserError, match=rf"output: .*plan\.json .*{sentence}.*choose another output\."):
        plan_for().agree(tmp_path)
