"""The MLflow run of a stage: how it starts, what it logs, and how it ends."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import mlflow
from filelock import FileLock
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis

from fsae_mlflow.errors import StoppedError, UserError
from fsae_mlflow.machine.ranks import Ranks
from fsae_mlflow.parameters import flat
from fsae_mlflow.tracking.description import NOTE_TAG, Call, unfinished
from fsae_mlflow.tracking.process.owners import HOST, device_tags, holder_of, is_gone, process_tags
from fsae_mlflow.tracking.process.signals import ignore_signals, interrupt_behind, reason_of
from fsae_mlflow.tracking.runs.answers import PATIENCE_SECONDS, is_refusal, patiently, said, server
from fsae_mlflow.tracking.runs.journal import REASON_TAG, NotLoggedError
from fsae_mlflow.tracking.runs.run import NOT_CALLED, OUTPUTS, RANDOM_NAME, RUN_NAME_TAG, Run
from fsae_mlflow.tracking.runs.source_code import code_tags
from fsae_mlflow.tracking.runs.system_metrics import system_metrics
from fsae_mlflow.tracking.runs.warned import warnings_kept

EXPERIMENT = "fsae_mlflow"
STAGE_TAG = "fsae.stage"
INTERRUPTED_PATIENCE_SECONDS = 10.0
HTTP_BRIEF = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}

logger = logging.getLogger(__name__)


class NullRun(Run):
    """The run of all ranks but the first: it reads from MLflow as the first one does, and logs nothing."""

    def __init__(self, stage: str, rank: int) -> None:
        with _creating_store():
            experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID") or _experiment(EXPERIMENT)
        self._begin(f"rank-{rank}", experiment_id, stage)

    @property
    def leads(self) -> bool:
        return False

    def log(self, do: str, **entry: Any) -> None:
        pass


def _experiment(name: str) -> str:
    found = MlflowClient().get_experiment_by_name(os.environ.get("MLFLOW_EXPERIMENT_NAME", name))
    return found.experiment_id if found else "0"


@contextmanager
def attached_run(settings: Any, *, stage: str, call: Call = NOT_CALLED) -> Iterator[Run]:
    """The run that `mlflow run` made for this process, or a new one, with the settings logged.

    An error ends the run FAILED, Ctrl-C or SIGTERM ends it KILLED, each with the reason in the tag `fsae.reason`. Of
    several processes that torchrun started, only the first has a run; the others get a NullRun. Runs of this experiment
    and host whose process is gone are ended KILLED first.

    Raises: UserError where the tracking server does not answer; NotLoggedError where the stage has finished, but the
    server has not received all of what it logs.
    """
    ranks = Ranks.of_environment()
    if not ranks.leads:
        yield NullRun(stage, ranks.rank)
        return
    try:
        active = _start()
        _end_gone_runs(active.info.experiment_id)
    except (MlflowException, OSError) as error:
        raise UserError(
            f"The tracking server {server()} cannot start a run: {said(error)}. Start it or correct "
            "MLFLOW_TRACKING_URI; nothing was done."
        ) from error
    folder = Path(getattr(settings, "output", "") or OUTPUTS / stage)
    try:
        with (
            _ended(Run(active, stage, folder, call)) as run,
            system_metrics(
                run.id,
                lambda points: run.log("metrics", metrics=points),
                has_metrics=lambda: bool(run.logged),
            ),
        ):
            values = flat(settings)
            run.set_tags(code_tags())
            searched = getattr(settings, "searched", ())
            run.log_params({name: value for name, value in values.items() if name not in searched})
            run.log_json(values, "config.json")
            run.add_to_name(getattr(settings, "title", ""))
            if device := getattr(settings, "device", ""):
                run.set_tags(device_tags(device))
            yield run
    except MlflowException as error:
        if error.get_http_status_code() in (401, 403):
            raise UserError(
                f"{stage} is refused by the tracking server {server()}: {said(error)}. Renew the access, then run the "
                "same command again."
            ) from error
        if is_refusal(error):
            raise
        raise UserError(
            f"{stage} needs the tracking server {server()}, which does not answer: {said(error)}. Start it, then run "
            "the same command again."
        ) from error
    if run.not_logged:
        raise NotLoggedError(" ".join(run.not_logged))


@contextmanager
def nested_run(parent: Run, name: str, *, stage: str, call: Call = NOT_CALLED) -> Iterator[Run]:
    """A child run in this process; it ends by the same rules as its parent, which says what was not logged."""
    active = patiently(
        lambda: mlflow.start_run(
            run_name=name, nested=True, parent_run_id=parent.id, experiment_id=parent.experiment_id
        )
    )
    with _ended(Run(active, stage, parent.journal.folder, call)) as run:
        yield run
    parent.not_logged += run.not_logged


def end_waiting_run(status: str, reason: str, *, name: str = "") -> None:
    """End the run that `mlflow run` made for this process, if it is still running, with the reason as a tag, and with
    this name in place of a random one.
    """
    client, run_id = MlflowClient(), os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return
    info = client.get_run(run_id).info
    if not RunStatus.is_terminated(RunStatus.from_string(info.status)):
        if name and RANDOM_NAME.fullmatch(info.run_name or ""):
            client.set_tag(run_id, RUN_NAME_TAG, name)
        client.set_tag(run_id, REASON_TAG, reason)
        client.set_tag(run_id, NOTE_TAG, unfinished("", reason))
        client.set_terminated(run_id, status)


def _start() -> mlflow.ActiveRun:
    # Child processes must use the same store, whatever their working directory is.
    os.environ.setdefault("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri())
    with _creating_store():
        if waiting := os.environ.get("MLFLOW_RUN_ID"):  # whoever made the run is at work: a pipeline, or `mlflow run`
            patiently(lambda: MlflowClient().get_run(waiting))
        if not {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"} & os.environ.keys():
            mlflow.set_experiment(EXPERIMENT)
        run = mlflow.start_run(log_system_metrics=False)
    if REASON_TAG in run.data.tags:  # of an earlier start, which failed or was stopped
        MlflowClient().delete_tag(run.info.run_id, REASON_TAG)
    return run


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
    client, host = MlflowClient(), process_tags()[HOST].replace("'", "")
    running = f"attributes.status = 'RUNNING' and tags.`{HOST}` = '{host}'"
    for run in client.search_runs([experiment_id], filter_string=running):
        if is_gone(run.data.tags):
            reason = f"its {holder_of(run.data.tags)} is gone"
            client.set_tag(run.info.run_id, REASON_TAG, reason)
            client.set_tag(run.info.run_id, NOTE_TAG, unfinished(run.data.tags.get(NOTE_TAG, ""), reason))
            client.set_terminated(run.info.run_id, "KILLED")


@contextmanager
def _ended(run: Run) -> Iterator[Run]:
    status, patience = "FAILED", INTERRUPTED_PATIENCE_SECONDS
    try:
        run.set_tags({STAGE_TAG: run.stage, NOTE_TAG: run.description()} | process_tags())
        with warnings_kept(run.warnings):
            yield run
        status, patience = "FINISHED", PATIENCE_SECONDS
    except BaseException as error:
        interrupt = interrupt_behind(error)
        if interrupt is not None:
            ignore_signals()
        if interrupt is not None or isinstance(error, StoppedError):
            status = "KILLED"
        reason = reason_of(interrupt) if interrupt else str(error) or type(error).__name__
        run.set_tags({REASON_TAG: reason, NOTE_TAG: unfinished(run.description(), reason)})
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
