"""The journal of a study in which a process was killed while it wrote."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from fsae_mlflow.errors import UserError
from fsae_mlflow.sweep.journal import open_journal

LINE = b'{"op_code":8,"worker_id":"c3ee0b26","trial_id":0,"user_attr":{"parent_run":"0"}}\n'
KILLED = """
import os, signal
from pathlib import Path
from fsae_mlflow.sweep.journal import open_journal
import optuna
study = optuna.load_study(storage=open_journal(Path("study.journal")), study_name="one")
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
study.set_user_attr("in", "time")
"""
ROOT = Path(__file__).parents[2]


def open_study(path: Path) -> optuna.Study:
    return optuna.create_study(storage=open_journal(path), study_name="one", load_if_exists=True)


@pytest.mark.parametrize("kept", [1, 40, len(LINE) - 1])
def test_the_study_goes_on_without_the_unfinished_line(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "study.journal"
    waiting = open_study(path)
    waiting.add_trial(optuna.create_trial(value=1.0))
    whole = path.read_bytes()
    path.write_bytes(whole + LINE[:kept])
    assert len(open_study(path).trials) == 1  # of a process that begins
    waiting.add_trial(optuna.create_trial(value=2.0))  # of one that goes on
    assert path.read_bytes().startswith(whole) and LINE[:kept] + b"{" not in path.read_bytes()
    assert [trial.value for trial in open_study(path).trials] == [1.0, 2.0]
    assert {trial.state for trial in waiting.trials} == {TrialState.COMPLETE}


def test_a_process_that_is_killed_while_it_writes_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a symbolic link to a relative path, as Optuna's own lock is, leads nowhere
    path = Path("study.journal")
    study = open_study(path)
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert killed.returncode == -signal.SIGKILL
    start = time.monotonic()
    study.set_user_attr("key", "value")
    assert time.monotonic() - start < 20
    assert open_study(path).user_attrs == {"in": "time", "key": "value"}


def test_a_first_line_that_is_unfinished_and_long_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    path.write_bytes(b'{"op_code":0,"study_name":"' + b"x" * 10_000)
    assert open_study(path).trials == []


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    open_study(path).set_user_attr("key", "value")
    path.write_bytes(LINE[:40] + path.read_bytes())
    with pytest.raises(UserError, match=r"study\.journal is damaged .*another output"):
        open_journal(path)
