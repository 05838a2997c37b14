"""The MLflow run of a stage: how it starts, what it logs, and how it ends."""

import os
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunStatus
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis

from fsae_mlflow.parameters import flat
from fsae_mlflow.ranks import Ranks
from fsae_mlflow.tracking.signals import ignore_signals, reason_of

EXPERIMENT = "fsae_mlflow"
STAGE_TAG = "fsae.stage"
REASON_TAG = "fsae.reason"
MAX_PARAM_LENGTH = 6000


class Run:
    """An MLflow run, with what the entry points log to it."""

    def __init__(self, run: MlflowRun, stage: str) -> None:
        self.id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self.stage = stage
        self.client = MlflowClient()

    @property
    def leads(self) -> bool:
        """Whether this process logs: it is alone, or the first of those that torchrun started."""
        return True

    def on_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at one step, in one request."""
        now = get_current_time_millis()
        self.client.log_batch(
            self.id, metrics=[Metric(name, float(value), now, step) for name, value in metrics.items()]
        )

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log the parameters that the run does not have yet; `mlflow run` has logged the given ones as they were typed.

        MLflow refuses a second value of a parameter, even 0.0001 after 1e-4.
        """
        known = self.client.get_run(self.id).data.params
        params = [Param(name, str(value)[:MAX_PARAM_LENGTH]) for name, value in values.items() if name not in known]
        self.client.log_batch(self.id, params=params)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            self.client.set_tag(self.id, name, value)

    def log_json(self, value: Any, name: str) -> None:
        self.client.log_dict(self.id, value, name)

    def log_table(self, rows: list[dict[str, Any]], name: str) -> None:
        """Log rows as a table, which the MLflow UI shows and compares between runs."""
        columns = {column: [row[column] for row in rows] for column in rows[0]} if rows else {}
        self.client.log_table(self.id, columns, name)

    def log_path(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or all files of a folder, as artifacts under `folder`."""
        if path.is_dir():
            self.client.log_artifacts(self.id, str(path), folder)
        else:
            self.client.log_artifact(self.id, str(path), folder)

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric that is logged so far."""
        return self.client.get_run(self.id).data.metrics

    def copy_from(self, child: "Run", *, metrics: Collection[str], artifacts: Collection[str]) -> None:
        """Log a child's metrics and top-level artifacts here too: those of the given names that the child has."""
        self.on_metrics({name: value for name, value in child.metrics.items() if name in metrics})
        for artifact in self.client.list_artifacts(child.id):
            if artifact.path in artifacts:
                self.log_path(Path(self.client.download_artifacts(child.id, artifact.path)))

    @property
    def ui_command(self) -> str:
        """The command that opens the MLflow UI on this run's store."""
        return shlex.join([sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", mlflow.get_tracking_uri()])

    @property
    def ui_address(self) -> str:
        """The address at which that UI shows this run."""
        return f"http://127.0.0.1:5000/#/experiments/{self.experiment_id}/runs/{self.id}"


class NullRun(Run):
    """The run of all ranks but the first: it reads from MLflow as the first one does, and logs nothing."""

    def __init__(self, stage: str, rank: int) -> None:
        self.id = f"rank-{rank}"
        self.experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID") or _experiment(EXPERIMENT)
        self.stage = stage
        self.client = _ReadingClient()

    @property
    def leads(self) -> bool:
        return False


class _ReadingClient(MlflowClient):
    def __getattribute__(self, name: str) -> Any:
        if name.startswith(("log_", "set_")):
            return lambda *_, **__: None
        return super().__getattribute__(name)


def _experiment(name: str) -> str:
    found = MlflowClient().get_experiment_by_name(os.environ.get("MLFLOW_EXPERIMENT_NAME", name))
    return found.experiment_id if found else "0"


@contextmanager
def attached_run(settings: Any, *, stage: str) -> Iterator[Run]:
    """The run that `mlflow run` made for this process, or a new one, with the settings logged.

    An error ends the run FAILED, Ctrl-C or SIGTERM ends it KILLED, each with the reason in the tag `fsae.reason`. Of
    several processes that torchrun started, only the first has a run; the others get a NullRun.
    """
    ranks = Ranks.of_environment()
    if not ranks.leads:
        yield NullRun(stage, ranks.rank)
        return
    with _ended(Run(_start(), stage)) as run:
        values = flat(settings)
        run.log_params(values)
        run.log_json(values, "config.json")
        yield run


@contextmanager
def nested_run(parent: Run, name: str, *, stage: str) -> Iterator[Run]:
    """A child run in this process; it ends by the same rules as its parent."""
    active = mlflow.start_run(run_name=name, nested=True, parent_run_id=parent.id)
    with _ended(Run(active, stage)) as run:
        yield run


def end_waiting_run(status: str, reason: str) -> None:
    """End the run that `mlflow run` made for this process, if it is still running, with the reason as a tag."""
    client, run_id = MlflowClient(), os.environ.get("MLFLOW_RUN_ID")
    if run_id and not RunStatus.is_terminated(RunStatus.from_string(client.get_run(run_id).info.status)):
        client.set_tag(run_id, REASON_TAG, reason)
        client.set_terminated(run_id, status)


def _start() -> mlflow.ActiveRun:
    # Child processes must use the same store, whatever their working directory is.
    os.environ.setdefault("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri())
    if not {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"} & os.environ.keys():
        mlflow.set_experiment(EXPERIMENT)
    return mlflow.start_run()


@contextmanager
def _ended(run: Run) -> Iterator[Run]:
    status = "FAILED"
    try:
        run.set_tags({STAGE_TAG: run.stage})
        yield run
        status = "FINISHED"
    except KeyboardInterrupt as interrupt:
        status = "KILLED"
        ignore_signals()
        run.set_tags({REASON_TAG: reason_of(interrupt)})
        raise
    except BaseException as error:
        run.set_tags({REASON_TAG: str(error) or type(error).__name__})
        raise
    finally:
        mlflow.end_run(status)
