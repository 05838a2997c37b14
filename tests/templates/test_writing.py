"""Shards of an unfinished set: what they account for, and a finished set that becomes unfinished again."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fsae_mlflow.errors import UserError
from fsae_mlflow.templates.manifest import ShardFile
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.templates.writing import faults_of, finish, has_shard, remove_shard, reopen, shard_fault, write_shard
from tests.template_sets import face_row

# The image ids with a row, and those without, of each shard.
SHARDS = [(["a/0.jpg", "a/0.jpg#1"], ["a/1.jpg"]), (["b/0.jpg"], ["b/1.jpg", "b/2.jpg"]), (["c/0.jpg"], ["c/1.jpg"])]
PICTURES = [2, 3, 2]


@pytest.fixture
def folder(tmp_path: Path, jpeg: bytes) -> Path:
    for number, (rows, failures) in enumerate(SHARDS):
        write_shard(
            tmp_path,
            number,
            [face_row(image_id, np.full(4, number + 1), jpeg) for image_id in rows],
            [(image_id, "no face") for image_id in failures],
            width=4,
            n_pictures=PICTURES[number],
        )
    return tmp_path


def finished(folder: Path) -> TemplateSet:
    return finish(folder, n_shards=3, width=4, metadata={})


def test_a_shard_accounts_for_its_pictures(folder: Path) -> None:
    assert [shard_fault(folder, number, n) for number, n in enumerate(PICTURES)] == ["", "", ""]
    assert shard_fault(folder, 1, 4) == "accounts for 3 of 4 pictures"
    (folder / "faces-00001.parquet").unlink()
    assert shard_fault(folder, 1, 3) == "faces-00001.parquet is missing"
    (folder / "failures-00002.parquet").unlink()
    assert shard_fault(folder, 2, 2).startswith("cannot be read (")


def test_further_faces_are_no_further_pictures_in_a_shard_without_records(folder: Path) -> None:
    for part in folder.glob("failures-*.parquet"):  # version 0.1 wrote no records
        pq.write_table(pq.read_table(part).replace_schema_metadata(), part)
    assert [shard_fault(folder, number, n) for number, n in enumerate(PICTURES)] == ["", "", ""]
    assert json.loads((finished(folder).folder / "set.json").read_text())["n_pictures"] == sum(PICTURES)


def test_a_finished_set_counts_its_shards(folder: Path) -> None:
    (folder / f".templates-00000.parquet.{os.getpid()}.tmp").write_bytes(b"left by a step that failed")
    templates = finished(folder)
    counts = {"n_rows": 4, "n_shards": 3, "n_pictures": 7, "n_failures": 4, "width": 4}
    assert counts.items() <= templates.metadata.items()
    assert templates.failures == [(image_id, "no face") for image_id in ("a/1.jpg", "b/1.jpg", "b/2.jpg", "c/1.jpg")]
    assert not list(folder.glob(".*.tmp")) and not list(folder.glob("failures-*"))
    assert faults_of(folder) == {}
    marker = json.loads((folder / "set.json").read_text())
    (folder / "set.json").write_text(json.dumps(marker | {"n_rows": 5}))
    assert faults_of(folder) == {"set.json": "says 5 rows, and its shards have 4"}


def test_a_set_without_any_row_says_the_most_frequent_reason(tmp_path: Path) -> None:
    failures = [("a", "no face"), ("b", "not a picture"), ("c", "no face")]
    write_shard(tmp_path, 0, [], failures, width=4, n_pictures=3)
    with pytest.raises(UserError, match="none of the 3 pictures gave a face, most often: no face"):
        finish(tmp_path, n_shards=1, width=4, metadata={})


@pytest.mark.parametrize("faults", [set(), {"templates-00001.parquet"}, {"faces-00001.parquet"}])
def test_a_reopened_set_lacks_the_faulty_shards_only(folder: Path, faults: set[str]) -> None:
    before = finished(folder)
    digest, failures = before.digest, before.failures
    reopen(folder, faults)
    assert not (folder / "set.json").exists()
    for number, n in enumerate(PICTURES):
        lost = bool(faults) and number == 1
        assert has_shard(folder, number) != lost
        assert (shard_fault(folder, number, n) == "") != lost
        assert (folder / f"failures-{number:05d}.parquet").exists() != lost
    if not faults:
        again = finished(folder)
        assert (again.digest, again.failures) == (digest, failures)


def test_a_removed_shard_is_gone_and_may_be_gone_already(folder: Path) -> None:
    remove_shard(folder, 1)
    remove_shard(folder, 1)
    assert not list(folder.glob("*-00001.parquet")) and len(list(folder.glob("*.parquet"))) == 6


def test_a_shard_is_verified_once_and_that_is_no_difference_between_sets(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_rows, faults, fault = 0, [], ShardFile.fault
    monkeypatch.setattr(ShardFile, "fault", lambda file, folder: faults.append(file.file) or fault(file, folder))
    templates = finished(folder)
    for _ in range(2):
        n_rows += sum(len(chunk) for chunk in templates.chunks("template"))
    assert n_rows == 8 and faults == [f"templates-{number:05d}.parquet" for number in range(3)]
    assert templates == TemplateSet.open(folder) and "verified=" not in repr(templates)
    assert replace(templates, verified=set()) == templates
