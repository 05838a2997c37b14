"""The MLflow run of a stage: how it starts, what it logs, and how it ends."""

import logging
import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import mlflow
from filelock import FileLock
from mlflow.entities import Run as MlflowRun
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis
from pandas import DataFrame

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import flat
from fsae_mlflow.ranks import Ranks
from fsae_mlflow.tracking.journal import (
    MAX_PARAM_LENGTH,
    PATIENCE_SECONDS,
    Journal,
    NotLoggedError,
    is_refusal,
    metric_points,
    said,
    server,
)
from fsae_mlflow.tracking.processes import is_gone, process_tags
from fsae_mlflow.tracking.signals import ignore_signals, interrupt_behind, reason_of

EXPERIMENT = "fsae_mlflow"
STAGE_TAG = "fsae.stage"
REASON_TAG = "fsae.reason"
MAX_TAG_LENGTH = 5000
OUTPUTS = Path("outputs")
INTERRUPTED_PATIENCE_SECONDS = 10.0
# MLflow's own defaults try one request for minutes. A user's values stay.
HTTP_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}
HTTP_BRIEF = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}

logger = logging.getLogger(__name__)


class Run:
    """An MLflow run, with what the entry points log to it. Logging does not wait for the server: see the journal."""

    def __init__(self, run: MlflowRun, stage: str, folder: Path = OUTPUTS) -> None:
        self.id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self.stage = stage
        self.client = MlflowClient()
        self.journal = Journal(self.id, folder, stage=stage)
        self.not_logged: list[str] = []

    @property
    def leads(self) -> bool:
        """Whether this process logs: it is alone, or the first of those that torchrun started."""
        return True

    def log(self, do: str, **entry: Any) -> None:
        """Put an entry of the journal's kind `do` into the run's journal."""
        self.journal.put({"do": do, **entry})

    def on_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at one step, if there are any."""
        if points := metric_points(metrics, step):
            self.log("metrics", metrics=points)

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log the parameters that the run does not have yet; `mlflow run` has logged the given ones as they were typed.

        MLflow refuses a second value of a parameter, even 0.0001 after 1e-4.
        """
        self.log("params", values={name: str(value)[:MAX_PARAM_LENGTH] for name, value in values.items()})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.log("tags", values={name: value[:MAX_TAG_LENGTH] for name, value in tags.items()})

    def log_json(self, value: Any, name: str) -> None:
        self.log("json", value=value, name=name)

    def log_table(self, rows: list[dict[str, Any]], name: str) -> None:
        """Log rows as a table, which the MLflow UI shows and compares between runs."""
        self.log("table", text=DataFrame(rows).to_json(orient="split", index=False), name=name)

    def log_path(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or all files of a folder, as artifacts under `folder`."""
        if not path.is_dir():
            stat = path.stat()
            stamp = [stat.st_size, stat.st_mtime_ns]
            self.log("path", path=str(path.resolve()), folder=folder, stamp=stamp)
            return
        for file in sorted(one for one in path.rglob("*") if one.is_file()):  # an entry each, so that each is sent once
            place = PurePosixPath(folder or "", file.relative_to(path).parent.as_posix())
            self.log_path(file, str(place) if place.parts else None)

    def on_image(self, key: str) -> Callable[[Path, int], None]:
        """What logs the pictures of a series, each a file, which the UI shows with a slider over steps."""

        def log(path: Path, step: int) -> None:
            self.log("image", path=str(path.resolve()), key=key, step=step)

        return log

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric that is logged so far."""
        if self.leads:
            self.journal.flush(PATIENCE_SECONDS)
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
        """The address at which that UI shows this run, in its training view, which has the model registry."""
        page = f"experiments/{self.experiment_id}/runs/{self.id}?workflowType=machine_learning"
        return f"http://127.0.0.1:5000/#/{page}"


class NullRun(Run):
    """The run of all ranks but the first: it reads from MLflow as the first one does, and logs nothing."""

    def __init__(self, stage: str, rank: int) -> None:
        self.id = f"rank-{rank}"
        with _creating_store():
            self.experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID") or _experiment(EXPERIMENT)
        self.stage = stage
        self.client = MlflowClient()

    @property
    def leads(self) -> bool:
        return False

    def log(self, do: str, **entry: Any) -> None:
        pass


def _experiment(name: str) -> str:
    found = MlflowClient().get_experiment_by_name(os.environ.get("MLFLOW_EXPERIMENT_NAME", name))
    return found.experiment_id if found else "0"


@contextmanager
def attached_run(settings: Any, *, stage: str) -> Iterator[Run]:
    """The run that `mlflow run` made for this process, or a new one, with the settings logged.

    An error ends the run FAILED, Ctrl-C or SIGTERM ends it KILLED, each with the reason in the tag `fsae.reason`. Of
    several processes that torchrun started, only the first has a run; the others get a NullRun. Runs of this experiment
    and host whose process is gone are ended KILLED first.

    Raises: UserError where the tracking server does not answer; NotLoggedError where the stage has finished, but the
    server has not received all of what it logs.
    """
    for name, value in HTTP_DEFAULTS.items():
        os.environ.setdefault(name, value)
    ranks = Ranks.of_environment()
    if not ranks.leads:
        yield NullRun(stage, ranks.rank)
        return
    try:
        active = _start()
        _end_gone_runs(active.info.experiment_id)
    except (MlflowException, OSError) as error:
        raise UserError(
            f"The tracking server {server()} cannot start a run: {said(error)}. Nothing was done."
        ) from error
    folder = Path(getattr(settings, "output", "") or OUTPUTS / stage)
    try:
        with _ended(Run(active, stage, folder)) as run:
            values = flat(settings)
            run.log_params(values)
            run.log_json(values, "config.json")
            yield run
    except MlflowException as error:
        if is_refusal(error):
            raise
        raise UserError(
            f"{stage} needs the tracking server {server()}, which does not answer: {said(error)}"
        ) from error
    if run.not_logged:
        raise NotLoggedError(" ".join(run.not_logged))


@contextmanager
def nested_run(parent: Run, name: str, *, stage: str) -> Iterator[Run]:
    """A child run in this process; it ends by the same rules as its parent, which says what was not logged."""
    active = mlflow.start_run(run_name=name, nested=True, parent_run_id=parent.id)
    with _ended(Run(active, stage, parent.journal.folder)) as run:
        yield run
    parent.not_logged += run.not_logged


def end_waiting_run(status: str, reason: str) -> None:
    """End the run that `mlflow run` made for this process, if it is still running, with the reason as a tag."""
    client, run_id = MlflowClient(), os.environ.get("MLFLOW_RUN_ID")
    if run_id and not RunStatus.is_terminated(RunStatus.from_string(client.get_run(run_id).info.status)):
        client.set_tag(run_id, REASON_TAG, reason)
        client.set_terminated(run_id, status)


def _start() -> mlflow.ActiveRun:
    # Child processes must use the same store, whatever their working directory is.
    os.environ.setdefault("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri())
    with _creating_store():
        if not {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"} & os.environ.keys():
            mlflow.set_experiment(EXPERIMENT)
        return mlflow.start_run()


@contextmanager
def _creating_store() -> Iterator[None]:
    """Let one process at a time create the tables of a new SQLite store, which MLflow does without a lock."""
    uri = mlflow.get_tracking_uri()
    if not uri.startswith("sqlite:///"):
        yield
        return
    database = Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0]))
    with FileLock(database.with_name(f".{database.name}.lock")):
        yield


def _end_gone_runs(experiment_id: str) -> None:
    client, host = MlflowClient(), process_tags()["fsae.host"].replace("'", "")
    running = f"attributes.status = 'RUNNING' and tags.`fsae.host` = '{host}'"
    for run in client.search_runs([experiment_id], filter_string=running):
        if is_gone(run.data.tags):
            client.set_tag(run.info.run_id, REASON_TAG, f"its process {run.data.tags['fsae.pid']} on {host} is gone")
            client.set_terminated(run.info.run_id, "KILLED")


@contextmanager
def _ended(run: Run) -> Iterator[Run]:
    status, patience = "FAILED", INTERRUPTED_PATIENCE_SECONDS
    try:
        run.set_tags({STAGE_TAG: run.stage} | process_tags())
        yield run
        status, patience = "FINISHED", PATIENCE_SECONDS
    except BaseException as error:
        interrupt = interrupt_behind(error)
        if interrupt is not None:
            status = "KILLED"
            ignore_signals()
        run.set_tags({REASON_TAG: reason_of(interrupt) if interrupt else str(error) or type(error).__name__})
        raise
    finally:
        run.log("end", status=status, time=get_current_time_millis())
        sentence = run.journal.close(patience, finished=status == "FINISHED")
        if sentence:
            run.not_logged.append(sentence)
            if status != "FINISHED":
                logger.warning("%s", sentence)
        with suppress(MlflowException, OSError), _requests(HTTP_BRIEF if sentence else {}):
            mlflow.end_run(status)  # the journal has ended it already; it has to leave MLflow's list of active runs


@contextmanager
def _requests(environment: Mapping[str, str]) -> Iterator[None]:
    former = {name: os.environ.get(name, "") for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.update(former)
