"""A damaged, foreign or incomplete template set is refused by the file's name, and extract mends it shard by shard."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fsae_mlflow.errors import UserError
from fsae_mlflow.extraction.stage import Extraction, extract
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.templates.writing import reopen
from tests import standin
from tests.template_sets import TemplateWriter, face_row

OLD = Path(__file__).parents[1] / "fixtures" / "version_0_1" / "templates"


@pytest.fixture
def folder(tmp_path: Path, jpeg: bytes) -> Path:
    """Six templates in three shards of equal size."""
    rng = np.random.default_rng(0)
    with TemplateWriter(tmp_path / "set", width=8, metadata={}, shard_rows=2) as writer:
        writer.fail("p9/9.jpg", "no face found")
        writer.write(face_row(f"p{i}/{i}.jpg", rng.normal(size=8), jpeg) for i in range(6))
    return writer.folder


def read_all(folder: Path) -> None:
    templates = TemplateSet.open(folder)
    assert len(templates.failures) == templates.metadata["n_failures"]
    assert templates.templates.shape == (len(templates), templates.width)
    templates.faces(range(len(templates)))


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def say(folder: Path, **values: object) -> None:
    marker = folder / "set.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | values))


def write_failures(folder: Path, reasons: list[str]) -> None:
    table = pa.table({"image_id": ["p9/9.jpg"] * len(reasons), "reason": reasons})
    pq.write_table(table, folder / "failures.parquet")


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write a shard's templates anew, changed."""
    table = pq.read_table(path)
    column = table.column("template").combine_chunks()
    changed = change(column.flatten().to_numpy().copy())
    new = pa.FixedSizeListArray.from_arrays(pa.array(changed), len(changed) // len(table))
    pq.write_table(table.set_column(table.column_names.index("template"), "template", new), path)


def nan(values: np.ndarray) -> np.ndarray:
    values[0] = np.nan
    return values


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda folder: (folder / "templates-00001.parquet").unlink(), "templates-00001.parquet is missing"),
    "truncated": (
        lambda folder: (folder / "templates-00002.parquet").write_bytes(
            (folder / "templates-00002.parquet").read_bytes()[:500]
        ),
        r"templates-00002.parquet has 500 bytes where [\d,]+ were written",
    ),
    "bit": (lambda folder: flip_bit(folder / "templates-00000.parquet"), "templates-00000.parquet differs from"),
    "bit of a face": (lambda folder: flip_bit(folder / "faces-00001.parquet"), "faces-00001.parquet differs from"),
    "face missing": (lambda folder: (folder / "faces-00001.parquet").unlink(), "faces-00001.parquet is missing"),
    "doubled": (
        lambda folder: shutil.copy(folder / "templates-00000.parquet", folder / "templates-00003.parquet"),
        r"templates-00003.parquet is not a shard of this set \(set.json lists 3\); delete it",
    ),
    "swapped": (
        lambda folder: shutil.copy(folder / "templates-00000.parquet", folder / "templates-00001.parquet"),
        "templates-00001.parquet differs from the file|templates-00001.parquet has .* bytes",
    ),
    "n_rows": (lambda folder: say(folder, n_rows=5), r"have 6 rows, and its set.json says 5; run the same extract"),
    "failures": (lambda folder: flip_bit(folder / "failures.parquet"), "failures.parquet (has another|is damaged)"),
    "other failures": (
        lambda folder: write_failures(folder, ["another reason"]),
        "failures.parquet differs from the file that was",
    ),
    "set.json": (lambda folder: (folder / "set.json").write_text("{"), "set.json is not readable JSON"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused_by_name(folder: Path, damage: str) -> None:
    read_all(folder)
    change, sentence = DAMAGE[damage]
    change(folder)
    with pytest.raises(UserError, match=sentence):
        read_all(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (nan, "row 0 of .*templates-00000.parquet holds NaN or infinite numbers"),
        (lambda values: np.where(values == values[9], np.inf, values), "row 1 of .*templates-00000.parquet holds NaN"),
        (lambda values: np.repeat(values, 2), "templates-00000.parquet must hold templates of 8 numbers"),
    ],
)
def test_templates_are_finite_and_wide_enough_even_without_checksums(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], sentence: str
) -> None:
    shutil.copytree(OLD, tmp_path / "set")
    rewrite(tmp_path / "set" / "templates-00000.parquet", change)
    templates = TemplateSet.open(tmp_path / "set")
    for read in (lambda: templates.templates, lambda: templates.digest, lambda: list(templates.chunks("template"))):
        with pytest.raises(UserError, match=sentence):
            read()


def test_a_set_without_checksums_opens_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(OLD, tmp_path / "set")
    with caplog.at_level(logging.WARNING):
        read_all(tmp_path / "set")
    assert [record.message for record in caplog.records if "has no checksums" in record.message] == [
        record.message for record in caplog.records
    ]
    assert len(caplog.records) == 1
    shutil.copy(tmp_path / "set" / "templates-00000.parquet", tmp_path / "set" / "templates-00009.parquet")
    with pytest.raises(UserError, match=r"rows, and its set\.json says 48"):
        TemplateSet.open(tmp_path / "set")


def fail(*args: object, **more: object) -> None:
    raise OSError("No space left on device")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faces: Path) -> Callable[[], Extraction]:
    """An extraction of 25 pictures in nine shards, one of them unreadable; each call is the same command."""
    monkeypatch.setattr("fsae_mlflow.extraction.stage.load_recognizer", standin.load)
    settings = standin.settings(faces, tmp_path / "out")
    return lambda: extract(settings, on_metrics=lambda metrics, step: None)


@pytest.mark.parametrize("damage", ["missing", "truncated", "bit", "bit of a face", "n_rows"])
def test_the_same_command_makes_a_damaged_shard_again_and_no_other(
    run: Callable[[], Extraction], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    templates = run().templates
    before = {path.name: path.stat().st_mtime_ns for path in templates.folder.glob("templates-*.parquet")}
    content = json.loads((templates.folder / "set.json").read_text())
    DAMAGE[damage][0](templates.folder)
    with pytest.raises(UserError, match="run the same extract command again, which makes only this shard again"):
        read_all(templates.folder)
    again = run().templates
    read_all(again.folder)
    after = {path.name: path.stat().st_mtime_ns for path in again.folder.glob("templates-*.parquet")}
    assert sum(before[name] != after[name] for name in before) == (damage != "n_rows")
    assert (again.digest, again.failures) == (templates.digest, templates.failures)
    assert {**content, "created": ""} == {**json.loads((again.folder / "set.json").read_text()), "created": ""}
    assert not list(again.folder.glob("failures-*"))


@pytest.mark.parametrize("kind", ["templates", "faces", "failures"])
@pytest.mark.parametrize("damage", [flip_bit, lambda path: path.write_bytes(b"PAR1"), Path.unlink])
def test_a_damaged_shard_of_an_unfinished_set_is_made_again(
    run: Callable[[], Extraction],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    damage: Callable[[Path], object],
) -> None:
    with monkeypatch.context() as full:
        full.setattr("fsae_mlflow.extraction.stage.finish", fail)
        with pytest.raises(OSError, match="No space"):
            run()
    damage(tmp_path / "out" / "templates" / f"{kind}-00001.parquet")
    templates = run().templates
    read_all(templates.folder)
    assert len(templates) + len(templates.failures) == 25


def test_unfinished_shards_of_version_0_1_are_kept_if_they_account_for_their_pictures(
    run: Callable[[], Extraction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "out" / "templates"
    with monkeypatch.context() as full:
        full.setattr("fsae_mlflow.extraction.stage.finish", fail)
        with pytest.raises(OSError, match="No space"):
            run()
    (folder / "templates-00003.parquet").unlink()
    for part in folder.glob("failures-*.parquet"):  # version 0.1 wrote no records
        pq.write_table(pq.read_table(part).replace_schema_metadata(), part)
    pq.write_table(pq.read_table(folder / "failures-00001.parquet")[:0], folder / "failures-00001.parquet")
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("templates-*.parquet")}
    templates = run().templates
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("templates-*.parquet")}
    assert {name for name in after if before.get(name) != after[name]} == {
        "templates-00001.parquet",  # its only failure was lost
        "templates-00003.parquet",  # it was removed
    }
    assert "shard 1 in" in caplog.text and "accounts for 2 of 3 pictures" in caplog.text
    read_all(folder)
    assert len(templates) == 24 and len(templates.failures) == 1


def test_ranks_make_their_own_damaged_shards_again(
    faces: Path, tmp_path: Path, run: Callable[[], Extraction], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out" / "templates"
    digest = run().templates.digest
    flip_bit(folder / "templates-00001.parquet")
    with monkeypatch.context() as ranks:
        ranks.setenv("RANK", "0")
        ranks.setenv("WORLD_SIZE", "2")
        with pytest.raises(
            UserError, match=r"is damaged \(templates-00001\.parquet\); run the same command once without"
        ):
            run()
    reopen(folder, {"templates-00008.parquet"})
    command = [sys.executable, "-m", "tests.standin", str(faces), str(tmp_path / "out"), "0", "0"]
    root = Path(__file__).parents[2]
    other = subprocess.Popen(command, cwd=root, env=os.environ | {"RANK": "1", "WORLD_SIZE": "2"})
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run().templates.digest == digest
    assert other.wait() == 0
    read_all(folder)
