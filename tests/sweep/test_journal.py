"""The journal of a study in which a process was killed while it wrote."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from fsae_mlflow.errors import UserError
from fsae_mlflow.sweep.journal import open_journal

LINE = b'{"op_code":8,"worker_id":"c3ee0b26","trial_id":0,"user_attr":{"parent_run":"0"}}\n'


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
