"""Child runs: a stage that runs other stages, each as the MLflow Project entry point that a user would call."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import mlflow.projects
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import ExecutionException

from fsae_mlflow.errors import UserError
from fsae_mlflow.tracking.runs.answers import patiently
from fsae_mlflow.tracking.runs.lifecycle import REASON_TAG, Run


def require_project(parent: Run) -> None:
    """Raises: UserError where the working directory is not the project's root."""
    if not all(map(os.path.exists, ("MLproject", "pyproject.toml", "entrypoints"))):
        raise UserError(
            f"{parent.stage} runs in the project's root, where MLproject is, but was started in {Path.cwd()}; cd there."
        )


def run_entry_point(parent: Run, name: str, parameters: Mapping[str, Any]) -> Run:
    """Run an entry point of the project in the working directory as a child of `parent`, in this Python environment.

    Ctrl-C and SIGTERM also reach the child, which ends KILLED before its parent.

    Raises: UserError with the child's reason where the child fails.
    """
    # env_manager="local" takes `python` from PATH: the children need the parent's environment.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    patiently(lambda: parent.client.get_run(parent.id))  # what follows is not tried twice
    try:
        submitted = mlflow.projects.run(
            ".",
            entry_point=name,
            parameters={key: str(value) for key, value in parameters.items()},
            experiment_id=parent.experiment_id,
            env_manager="local",
        )
    except KeyboardInterrupt:
        # MLflow sets a canceled run to FAILED, although the child has ended as KILLED.
        if child := _newest_child(parent, name):
            parent.client.set_terminated(child.info.run_id, "KILLED")
        raise
    except ExecutionException as error:
        child = _newest_child(parent, name)
        if child is None:
            raise UserError(f"{name} failed before it had a run: {error}") from error
        raise UserError(f"{name} failed: {child.data.tags.get(REASON_TAG, error)} (run {child.info.run_id})") from error
    return Run(patiently(lambda: parent.client.get_run(submitted.run_id)), name)


def _newest_child(parent: Run, name: str) -> MlflowRun | None:
    found = patiently(
        lambda: mlflow.search_runs(
            [parent.experiment_id],
            filter_string=f"tags.mlflow.parentRunId = '{parent.id}' and tags.mlflow.project.entryPoint = '{name}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
            output_format="list",
        )
    )
    return found[0] if found else None
