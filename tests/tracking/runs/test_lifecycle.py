"""Runs: which process they belong to, what they really used, and how they end when something fails."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
from click.testing import CliRunner
from mlflow.entities import Metric, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import UNAUTHENTICATED
from PIL import Image

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import settings
from fsae_mlflow.sae.saved import digest, load_sae
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.tracking import registry
from fsae_mlflow.tracking.command import command
from fsae_mlflow.tracking.data.inputs import find_sae, open_templates
from fsae_mlflow.tracking.process.environment import DEFAULTS
from fsae_mlflow.tracking.process.owners import HOST, PROCESS, is_gone, process_tags
from fsae_mlflow.tracking.registry import register_sae
from fsae_mlflow.tracking.runs import answers
from fsae_mlflow.tracking.runs.lifecycle import Run, nested_run
from fsae_mlflow.tracking.runs.sending import attempt

FIXTURES = Path(__file__).parents[2] / "fixtures" / "version_0_1"
GATED = FIXTURES / "saes" / "gated"


@settings
class Nothing:
    """No parameters."""


ROOT = Path(__file__).parents[3]
STAGE = """
import os, signal
from fsae_mlflow.parameters import settings
from fsae_mlflow.tracking.command import command

@settings
class Nothing:
    pass

command(Nothing, stage="example")(lambda settings, run: STAGE)([])
"""


def process(body: str, **options: Any) -> subprocess.Popen[str]:
    """A process that runs a stage of the given body, in the working directory's or the given store."""
    code = STAGE.replace("STAGE", body)
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=-1, stderr=subprocess.STDOUT, text=True, **options
    )


def invoke(function: Any) -> Any:
    return CliRunner().invoke(command(Nothing, stage="example")(function), [])


def newest() -> mlflow.entities.Run:
    return mlflow.search_runs(search_all_experiments=True, order_by=["start_time DESC"], output_format="list")[0]


def test_a_process_is_gone_when_its_pid_is_free_or_another_processs() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = process_tags()
    process = json.loads(here[PROCESS])

    def changed(**values: object) -> dict[str, str]:
        return here | {PROCESS: json.dumps(process | values)}

    assert not is_gone(here)
    assert is_gone(changed(pid=ended.pid))
    assert is_gone(changed(started=process["started"] - 100))
    assert not is_gone(changed(pid=ended.pid) | {HOST: "elsewhere"})
    assert not is_gone(changed(pid=ended.pid, pid_namespace="pid:[1]"))
    for unknown in ({}, {PROCESS: "edited"}, {PROCESS: "[1]"}):  # the first is of an earlier version
        assert not is_gone({HOST: here[HOST]} | unknown)


@pytest.mark.usefixtures("store")
def test_the_next_run_ends_the_runs_of_dead_processes() -> None:
    killed = process("run.journal.flush(30.0) and os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.communicate()[0] is not None and killed.returncode == -signal.SIGKILL
    dead = newest()
    assert dead.info.status == "RUNNING"
    alive = mlflow.MlflowClient().create_run(dead.info.experiment_id, tags=process_tags())
    assert invoke(lambda settings, run: None).exit_code == 0
    dead = mlflow.get_run(dead.info.run_id)
    assert dead.info.status == "KILLED"
    assert dead.data.tags["fsae.reason"] == f"its process {killed.pid} on {dead.data.tags[HOST]} is gone"
    assert mlflow.get_run(alive.info.run_id).info.status == "RUNNING"


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_a_stop_when_the_last_save_fails(number: signal.Signals) -> None:
    def stage(settings: Nothing, run: Run) -> None:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        except KeyboardInterrupt:
            raise OSError(28, "No space left on device", "checkpoint.pt") from None

    result = invoke(stage)
    assert result.exit_code == 130
    assert "No space left on device: 'checkpoint.pt'" in result.output
    assert newest().info.status == "KILLED" and newest().data.tags["fsae.reason"].startswith(("stopped", "interrupted"))


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("kind", [ValueError, TypeError, IndexError])
def test_a_bug_shows_its_traceback_and_where_to_report_it(kind: type[Exception]) -> None:
    def stage(settings: Nothing, run: Run) -> None:
        raise kind("unexpected")

    result = invoke(stage)
    assert type(result.exception) is kind
    assert "this is a bug of fsae_mlflow; please report it" in result.exception.__notes__[0]
    assert newest().info.status == "FAILED" and newest().data.tags["fsae.reason"] == "unexpected"


@pytest.mark.usefixtures("store")
def test_a_run_says_what_it_really_used(tmp_path: Path) -> None:
    def extract(settings: Nothing, run: Run) -> None:
        run.log_path(FIXTURES / "templates", "templates")

    def train(settings: Nothing, run: Run) -> None:
        registry.log_sae(run, GATED)
        register_sae(run, load_sae(GATED), GATED, name="small")

    def use(templates: str, sae: str) -> Any:
        def stage(settings: Nothing, run: Run) -> None:
            open_templates(run, templates, context="test")
            find_sae(run, sae)

        return stage

    assert CliRunner().invoke(command(Nothing, stage="extract")(extract), []).exit_code == 0
    extracted = newest().info.run_id
    assert CliRunner().invoke(command(Nothing, stage="train_sae")(train), []).exit_code == 0
    trained = newest().info.run_id
    relative = os.path.relpath(GATED)
    expected = TemplateSet.open(FIXTURES / "templates").digest
    for templates, sae, of_templates, of_sae in (
        ("latest", "latest", f"runs:/{extracted}/templates", f"runs:/{trained}/sae"),
        (extracted, "models:/small@challenger", f"runs:/{extracted}/templates", f"models:/small/1 of run {trained}"),
        (os.path.relpath(FIXTURES / "templates"), relative, str(FIXTURES / "templates"), str(GATED)),
    ):
        result = invoke(use(templates, sae))
        assert result.exit_code == 0, result.output
        tags = newest().data.tags
        assert tags["fsae.templates"] == of_templates and tags["fsae.templates.digest"] == expected
        assert tags["fsae.sae"] == of_sae and tags["fsae.sae.digest"] == digest(GATED)
        assert {one.dataset.digest for one in newest().inputs.dataset_inputs} == {expected, digest(GATED)}


def test_two_first_commands_share_a_fresh_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    fresh = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    for one in [process("None", cwd=tmp_path, env=fresh) for _ in range(2)]:
        output = one.communicate()[0]
        assert one.returncode == 0, output


def test_only_the_boot_time_moves_with_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    before = process_tags()
    boot, created = psutil.boot_time(), psutil.Process().create_time()
    monkeypatch.setattr(psutil, "boot_time", lambda: boot + 3600)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: created + 3600)
    assert not is_gone(before)


def test_requests_are_not_tried_for_minutes() -> None:
    values = {name: int(value) for name, value in DEFAULTS.items() if value.isdigit()}
    assert values["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] <= 2 and values["MLFLOW_HTTP_REQUEST_TIMEOUT"] <= 60


@pytest.mark.usefixtures("store")
def test_a_run_that_is_started_again_forgets_why_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(settings: Nothing, run: Run) -> None:
        raise UserError("There is nothing to do.")

    assert invoke(fails).exit_code == 1
    failed = newest()
    assert failed.data.tags["fsae.reason"] == "There is nothing to do."
    monkeypatch.setenv("MLFLOW_RUN_ID", failed.info.run_id)
    assert invoke(lambda settings, run: None).exit_code == 0
    again = newest()
    assert again.info.run_id == failed.info.run_id and "fsae.reason" not in again.data.tags


@pytest.fixture
def absences(store: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For how many of the next requests that make a run or read one the server is away every second time."""
    left = [0]
    monkeypatch.setattr(answers, "SECONDS_BETWEEN_TRIES", 0.01)
    for name in ("create_run", "get_run"):
        asked = getattr(mlflow.MlflowClient, name)

        def ask(*given: Any, asked: Any = asked, **named: Any) -> Any:
            left[0] -= 1
            if left[0] >= 0 and left[0] % 2 == 0:
                raise MlflowException("connection refused")
            return asked(*given, **named)

        monkeypatch.setattr(mlflow.MlflowClient, name, ask)
    return left


def test_a_server_that_is_away_for_a_time_ends_no_stage_that_has_started(absences: list[int]) -> None:
    def stage(settings: Nothing, run: Run) -> None:
        run.on_metrics({"x": 1.0})
        assert run.journal.flush(20.0)
        absences[0] = 3
        with nested_run(run, "trial", stage="trial") as trial:
            trial.on_metrics({"x": 2.0})
            assert trial.journal.flush(20.0)
            absences[0] = 3
            assert trial.metrics == {"x": 2.0}
            absences[0] = 5
            run.copy_from(trial, metrics=["x"], artifacts=[])

    result = invoke(stage)
    assert result.exit_code == 0, result.output
    assert newest().data.metrics == {"x": 2.0}


def test_a_stage_of_a_pipeline_waits_for_the_server(absences: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = mlflow.MlflowClient().create_run(mlflow.set_experiment("e").experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", waiting)
    absences[0] = 1
    assert invoke(lambda settings, run: None).exit_code == 0
    assert mlflow.get_run(waiting).info.status == "FINISHED"


@pytest.mark.usefixtures("store")
def test_access_that_ends_during_a_stage_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **named: Any) -> None:
        raise MlflowException("You are not authenticated.", error_code=UNAUTHENTICATED)

    def stage(settings: Nothing, run: Run) -> None:
        monkeypatch.setattr(mlflow.MlflowClient, "create_run", refuse)
        with nested_run(run, "trial", stage="trial"):
            pass

    result = invoke(stage)
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert "example is refused by the tracking server" in result.output and "Renew the access" in result.output


@pytest.mark.usefixtures("store")
def test_a_nested_run_is_in_its_parents_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("of the parent")
    monkeypatch.setenv("MLFLOW_RUN_ID", client.create_run(experiment).info.run_id)
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)

    def stage(settings: Nothing, run: Run) -> None:
        with nested_run(run, "trial", stage="trial"):
            pass

    assert invoke(stage).exit_code == 0
    assert len(client.search_runs([experiment])) == 2


@pytest.mark.usefixtures("store")
def test_another_run_is_tagged_unless_it_is_deleted_or_of_another_server() -> None:
    client, others = mlflow.MlflowClient(), list[str]()

    def stage(settings: Nothing, run: Run) -> None:
        others.extend(client.create_run(run.experiment_id).info.run_id for _ in range(2))
        client.delete_run(others[0])
        for other in (*others, 32 * "0"):
            run.tag_run(other, {"best": "yes"})

    result = invoke(stage)
    assert result.exit_code == 0, result.output
    assert client.get_run(others[1]).data.tags["best"] == "yes"
    deleted = client.search_runs([client.get_run(others[0]).info.experiment_id], run_view_type=ViewType.DELETED_ONLY)
    assert "best" not in deleted[0].data.tags


@pytest.mark.usefixtures("store")
def test_mlflow_splits_metrics_that_are_more_than_a_request_takes() -> None:
    client = mlflow.MlflowClient()
    run_id = client.create_run(mlflow.set_experiment("e").experiment_id).info.run_id
    client.log_batch(run_id, metrics=[Metric(f"m/{number}", 1.0, 1, 0) for number in range(1001)])
    assert len(client.get_run(run_id).data.metrics) == 1001


@pytest.mark.usefixtures("store")
def test_a_picture_whose_answer_was_lost_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGB", (4, 4)).save(path)
    client = mlflow.MlflowClient()
    run_id = client.create_run(mlflow.set_experiment("e").experiment_id).info.run_id
    for step in (1, 1, 10):
        entry = {"do": "image", "path": str(path), "key": "faces/all", "step": step}
        assert attempt(client, run_id, [entry]) is None
    names = [one.path for one in client.list_artifacts(run_id, "images") if one.path.endswith(".png")]
    assert len(names) == 2
