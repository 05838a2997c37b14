"""Child runs of the project's entry points."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import ExecutionException

from fsae_mlflow.errors import UserError
from fsae_mlflow.tracking.children.projects import run_entry_point
from fsae_mlflow.tracking.runs.lifecycle import Run


@pytest.fixture
def parent(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with a child of another name, in the root of a project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    (tmp_path / "entrypoints").mkdir()
    for name in ("MLproject", "entrypoints/extract.py"):
        (tmp_path / name).touch()
    client, experiment = mlflow.MlflowClient(), mlflow.set_experiment("e").experiment_id
    run = Run(client.create_run(experiment), "demo")
    client.create_run(experiment, tags={"mlflow.parentRunId": run.id}, run_name="train_sae")
    return run


@pytest.mark.parametrize("error", [ExecutionException("no python"), KeyboardInterrupt()])
def test_a_child_that_never_had_a_run_is_no_bug(
    error: BaseException, parent: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(mlflow.projects, "run", fail)
    expected = UserError if isinstance(error, Exception) else KeyboardInterrupt
    with pytest.raises(expected) as raised:
        run_entry_point(parent, "extract", {})
    if isinstance(error, Exception):
        assert str(raised.value) == "extract failed before it had a run: no python"
    assert {run.info.status for run in parent.client.search_runs([parent.experiment_id])} == {"RUNNING"}
