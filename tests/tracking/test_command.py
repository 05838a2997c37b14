"""The command line of a settings class, and how its run ends."""

import os
import signal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import mlflow
import pytest
from annotated_types import Ge
from click.testing import CliRunner, Result

from fsae_mlflow.parameters import settings
from fsae_mlflow.tracking.command import command
from fsae_mlflow.tracking.runs import Run, nested_run


@settings
class Example:
    """Something to run."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"lam": 1e-7}}

    preset: Annotated[Literal["default", "paper"], "Preset."] = "default"
    lam: Annotated[float, "Sparsity.", Ge(0)] = 0.1
    batch_size: Annotated[int, "Batch.", Ge(1)] = 8
    on: Annotated[bool, "Switch."] = False
    name: Annotated[str, "Name."] = "x"


pytestmark = pytest.mark.usefixtures("store")


def invoke(function: Any, *args: str) -> Result:
    return CliRunner().invoke(command(Example, stage="example")(function), args)


def newest() -> mlflow.entities.Run:
    return mlflow.search_runs(search_all_experiments=True, order_by=["start_time DESC"], output_format="list")[0]


def seen(*args: str) -> Example:
    found: list[Example] = []
    result = invoke(lambda settings, run: found.append(settings), *args)
    assert result.exit_code == 0, result.output
    return found[0]


def test_options_keep_underscores_and_types() -> None:
    assert seen("--batch_size", "3", "--on", "True", "--name", "y") == Example(batch_size=3, on=True, name="y")


def test_empty_means_not_given_and_presets_fill_in() -> None:
    assert seen("--lam", "", "--batch_size", "").lam == 0.1
    assert seen("--lam", "", "--preset", "paper").lam == 1e-7
    assert seen("--lam", "0.5", "--preset", "paper").lam == 0.5
    assert seen("--lam", "0.1", "--preset", "paper").lam == 0.1


def test_a_finished_run_has_every_parameter_once() -> None:
    seen("--lam", "1e-4")
    run = newest()
    assert run.info.status == "FINISHED"
    assert run.data.params == {"preset": "default", "lam": "0.0001", "batch_size": "8", "on": "False", "name": "x"}
    assert run.data.tags["fsae.stage"] == "example"
    assert mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/config.json")["batch_size"] == 8


def test_attaches_to_the_run_that_mlflow_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with mlflow.start_run(experiment_id=mlflow.set_experiment("e").experiment_id) as active:
        mlflow.log_param("lam", "1e-4")
    monkeypatch.setenv("MLFLOW_RUN_ID", active.info.run_id)
    seen("--lam", "1e-4")
    assert newest().info.run_id == active.info.run_id
    assert newest().data.params["lam"] == "1e-4" and newest().data.params["batch_size"] == "8"


def test_a_users_mistake_is_one_sentence_and_a_failed_run() -> None:
    def fail(settings: Example, run: Run) -> None:
        raise ValueError("faces: /nowhere is not a folder.")

    result = invoke(fail)
    assert result.exit_code == 1 and result.output.splitlines()[-1] == "Error: faces: /nowhere is not a folder."
    assert "Traceback" not in result.output
    assert newest().info.status == "FAILED"
    assert newest().data.tags["fsae.reason"] == "faces: /nowhere is not a folder."


def test_a_refused_value_is_a_usage_error_noted_on_the_waiting_run(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = mlflow.set_experiment("e").experiment_id
    for arguments, sentence in (
        (["--lam", "-1"], "lam must be at least 0; it is -1.0."),
        (["--batch_size", "x"], "Invalid value for '--batch_size': 'x' is not a valid integer."),
    ):
        waiting = mlflow.MlflowClient().create_run(experiment).info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", waiting)
        result = invoke(lambda settings, run: None, *arguments)
        assert result.exit_code == 2 and sentence in result.output
        run = mlflow.get_run(waiting)
        assert run.info.status == "FAILED" and sentence in run.data.tags["fsae.reason"]


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGTERM, "stopped by SIGTERM"), (signal.SIGINT, "interrupted (Ctrl-C)")]
)
def test_a_signal_kills_the_run_and_its_children(number: signal.Signals, reason: str) -> None:
    def wait(settings: Example, run: Run) -> None:
        with nested_run(run, "child", stage="trial"):
            os.kill(os.getpid(), number)
            signal.pause()

    result = invoke(wait)
    assert result.exit_code == 130
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"]
    assert {run.data.tags["fsae.reason"] for run in runs} == {reason}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_only_the_first_process_of_torchrun_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    def log(settings: Example, run: Run) -> None:
        run.on_metrics({"x": 1.0})
        run.log_table([{"a": 1}], "table.json")
        run.log_path(Path(__file__))

    monkeypatch.setenv("RANK", "1")
    assert invoke(log).exit_code == 0
    assert not mlflow.search_runs(search_all_experiments=True, output_format="list")
    monkeypatch.setenv("RANK", "0")
    assert invoke(log).exit_code == 0
    assert newest().data.metrics == {"x": 1.0}
