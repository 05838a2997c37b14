"""Files and folders that appear whole or not at all."""

from pathlib import Path

import pytest

from fsae_mlflow.atomic import atomic_write


def test_a_file_replaces_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with atomic_write(tmp_path / "a") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with atomic_write(tmp_path / "deep" / "a") as temporary:
            temporary.mkdir()
            (temporary / content).touch()
    assert [path.name for path in (tmp_path / "deep").rglob("*")] == ["a", "new"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(OSError, match="disk full"), atomic_write(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
