"""The template set: what is written is read again, and an unfinished set is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fsae_mlflow import __version__
from fsae_mlflow.errors import UserError
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.templates.writing import finish, write_shard
from tests.template_sets import TemplateWriter, face_row


def test_round_trip_over_shards(template_set: TemplateSet) -> None:
    assert len(template_set) == 400 and template_set.width == 16
    assert template_set.templates.shape == (400, 16) and template_set.templates.dtype == np.float32
    assert template_set.image_ids[399] == "p39/399.jpg" and template_set.identities[399] == "p39"
    assert template_set.column("keypoints").shape == (400, 10)
    assert template_set.column("source_height").tolist() == [240] * 400
    assert template_set.failures == [("p00/blank.jpg", "no face found")]
    assert [face.size for face in template_set.faces([399, 0, 151])] == [(112, 112)] * 3


def test_a_list_column_is_read_shard_by_shard(template_set: TemplateSet) -> None:
    chunks = list(template_set.chunks("template"))
    assert [len(chunk) for chunk in chunks] == [150, 150, 100]
    np.testing.assert_array_equal(np.concatenate(chunks), template_set.templates)


def test_a_set_carries_the_version_that_wrote_it(template_set: TemplateSet) -> None:
    assert template_set.metadata["fsae_mlflow"] == __version__


def test_templates_are_fixed_size_lists_that_pandas_reads(template_set: TemplateSet) -> None:
    table = pq.read_table(sorted(template_set.folder.glob("templates-*.parquet"))[0])
    assert str(table.schema.field("template").type).startswith("fixed_size_list<") and "[16]" in str(
        table.schema.field("template").type
    )
    frame = table.to_pandas()
    np.testing.assert_array_equal(np.stack(frame["template"]), template_set.templates[:150])


def test_an_interrupted_set_is_refused(tmp_path: Path, jpeg: bytes) -> None:
    rows = [face_row(f"a/{i}.jpg", np.ones(4), jpeg) for i in range(5)]
    with (
        pytest.raises(RuntimeError, match="power cut"),
        TemplateWriter(tmp_path, width=4, metadata={}, shard_rows=2) as writer,
    ):
        writer.write(rows)
        raise RuntimeError("power cut")
    with pytest.raises(ValueError, match="unfinished"):
        TemplateSet.open(tmp_path)
    with pytest.raises(ValueError, match="make one with the extract entry point"):
        TemplateSet.open(tmp_path / "nowhere")


def test_the_folder_above_a_set_names_the_set(template_set: TemplateSet, tmp_path: Path) -> None:
    shutil.copytree(template_set.folder, tmp_path / "templates")
    with pytest.raises(UserError, match=r"is not a finished template set \(no set\.json\); the set is .*/templates"):
        TemplateSet.open(tmp_path)


@pytest.mark.parametrize("template", [np.ones(3), np.array([1, 2, np.nan, 4])])
def test_a_wrong_template_is_refused_by_image(tmp_path: Path, jpeg: bytes, template: np.ndarray) -> None:
    writer = TemplateWriter(tmp_path, width=4, metadata={}, shard_rows=1)
    with pytest.raises(ValueError, match=r"a/1\.jpg: the template must be 4 finite numbers"):
        writer.write([face_row("a/1.jpg", template, jpeg)])


def test_equal_content_has_equal_digests(tmp_path: Path, jpeg: bytes) -> None:
    def digest(name: str, value: float) -> str:
        with TemplateWriter(tmp_path / name, width=4, metadata={}, shard_rows=len(name)) as writer:
            writer.write(face_row(f"a/{i}.jpg", np.full(4, value), jpeg) for i in range(3))
        return TemplateSet.open(tmp_path / name).digest

    assert digest("a", 1.0) == digest("bb", 1.0) != digest("ccc", 2.0)


def test_unknown_attributes_are_nan_or_none(tmp_path: Path, jpeg: bytes) -> None:
    kinds = {"age": "int", "glasses": "bool", "group": "string"}
    values = [(31, True, "a"), (None, None, None)]
    rows = [replace(face_row(f"a/{i}.jpg", np.ones(4), jpeg), attributes=value) for i, value in enumerate(values)]
    for name, n in (("known", 1), ("unknown", 2)):
        write_shard(tmp_path / name, 0, rows[:n], [("a/9.jpg", "no face")], width=4, n_pictures=n + 1, attributes=kinds)
    known, unknown = (
        finish(tmp_path / name, n_shards=1, width=4, metadata={}, attributes=kinds) for name in ("known", "unknown")
    )
    assert [known.column(name).tolist() for name in kinds] == [[31], [True], ["a"]]
    assert [known.column(name).dtype.kind for name in kinds] == ["i", "b", "O"]
    np.testing.assert_array_equal(unknown.column("age"), [31.0, np.nan])
    assert [unknown.column(name).tolist() for name in ("glasses", "group")] == [[True, None], ["a", None]]
    # Merged failures leave no file of their own behind.
    assert [path.name for path in (tmp_path / "known").glob("failures*")] == ["failures.parquet"]


def test_damaged_failures_are_refused_with_a_way_out(template_set: TemplateSet, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(template_set.folder, folder)
    (folder / "failures.parquet").write_bytes(b"PAR1 half a file")
    with pytest.raises(
        UserError, match=r"failures\.parquet is damaged or missing .*extract the set into another output"
    ):
        _ = TemplateSet.open(folder).failures
