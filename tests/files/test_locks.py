"""Two writers of one folder."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.locks import only_writer

SCRIPT = """
import sys, time
from pathlib import Path
from fsae_mlflow.files.locks import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_writer_is_refused_and_a_dead_one_gives_way(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None and first.stdout.readline() == "held\n"
    with (
        pytest.raises(UserError, match=rf"output: .* is being written by process {first.pid} on "),
        only_writer(tmp_path),
    ):
        pass
    first.kill()
    first.wait()
    with only_writer(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".writer.json").read_text()
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_releases_the_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), only_writer(tmp_path):
        raise RuntimeError
    started = time.monotonic()
    with only_writer(tmp_path):
        assert time.monotonic() - started < 5
