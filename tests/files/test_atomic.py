"""Files and folders that appear whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fsae_mlflow.files.atomic import atomic_write, clean
from fsae_mlflow.files.locks import only_writer


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


KILLED_WHILE_IT_REPLACES_A_FOLDER = """
import os, signal, sys
from pathlib import Path
from fsae_mlflow.files.atomic import atomic_write
target = Path(sys.argv[1]) / "a"
replace = Path.replace
def replace_and_die(self, other):
    replace(self, other)
    os.kill(os.getpid(), signal.SIGKILL)
Path.replace = replace_and_die
with atomic_write(target) as temporary:
    temporary.mkdir()
    (temporary / "new").touch()
"""


def test_a_folder_whose_replacement_was_killed_is_put_back(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    subprocess.run([sys.executable, "-c", KILLED_WHILE_IT_REPLACES_A_FOLDER, str(tmp_path)], timeout=60)
    assert not (tmp_path / "a").exists() and len(list(tmp_path.iterdir())) == 2
    with only_writer(tmp_path):
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kept = [f".a.{os.getppid()}.tmp", ".a.tmp", "a.1.tmp", f"a.{dead.pid}.tmp", ".a.b.tmp", "b"]
    for name in (*kept, f".a.{dead.pid}.tmp", f".a.b.{dead.pid}.tmp", f".a.{os.getpid()}.tmp", ".tmp8Pkx0D"):
        (tmp_path / name).touch()
    (tmp_path / f".b.{dead.pid}.old").mkdir()
    (tmp_path / f".b.{dead.pid}.old" / "c").touch()
    clean(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
