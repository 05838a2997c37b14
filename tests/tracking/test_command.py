"""The command line of a settings class, and how its run ends."""

import os
import signal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import mlflow
import pytest
import torch
from annotated_types import Ge
from click.testing import CliRunner, Result

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import OneOf, settings
from fsae_mlflow.tracking.command import command
from fsae_mlflow.tracking.runs.lifecycle import Run, nested_run


@settings
class Example:
    """Something to run."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"lam": 1e-7}}

    preset: Annotated[Literal["default", "paper"], "Preset."] = "default"
    lam: Annotated[float, "Sparsity.", Ge(0)] = 0.1
    batch_size: Annotated[int, "Batch.", Ge(1)] = 8
    on: Annotated[bool, "Switch."] = False
    name: Annotated[str, "Name."] = "x"


@settings
class Tile:
    """What all kinds of tile are."""


@settings
class Square(Tile):
    """A kind of tile."""

    lam: Annotated[float, "Sparsity.", Ge(0)] = 0.1
    norm: Annotated[Literal["held", "weighted"], "Norm."] = "held"


@settings
class Round(Tile):
    """Another kind of tile."""

    lam: Annotated[float, "Sparsity.", Ge(0)] = 0.1
    norm: Annotated[Literal["held", "weighted"], "Norm."] = "weighted"
    k: Annotated[int, "Count.", Ge(1)] = 32


TILES: dict[str, type] = {"square": Square, "round": Round}


@settings
class Floor:
    """Something with a choice of tiles, each with parameters of its own."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"tile": "round", "k": 7, "size": 3}}

    preset: Annotated[Literal["default", "paper"], "Preset."] = "default"
    tile: Annotated[Tile, "Kind of tile.", OneOf(lambda: TILES)] = Square()
    size: Annotated[int, "Size."] = 1


pytestmark = pytest.mark.usefixtures("store")


def invoke(function: Any, *args: str, of: type = Example) -> Result:
    # The help text must not be wrapped: the tests look for sentences in it.
    return CliRunner().invoke(command(of, stage="example")(function), args, terminal_width=1000, max_content_width=1000)


def newest() -> mlflow.entities.Run:
    return mlflow.search_runs(search_all_experiments=True, order_by=["start_time DESC"], output_format="list")[0]


def seen(*args: str, of: type = Example) -> Any:
    found: list[Any] = []
    result = invoke(lambda settings, run: found.append(settings), *args, of=of)
    assert result.exit_code == 0, result.output
    return found[0]


def test_options_keep_underscores_and_types() -> None:
    assert seen("--batch_size", "3", "--on", "True", "--name", "y") == Example(batch_size=3, on=True, name="y")


def test_empty_means_not_given_and_presets_fill_in() -> None:
    assert seen("--lam", "", "--batch_size", "").lam == 0.1
    assert seen("--lam", "", "--preset", "paper").lam == 1e-7
    assert seen("--lam", "0.5", "--preset", "paper").lam == 0.5
    assert seen("--lam", "0.1", "--preset", "paper").lam == 0.1


def test_parameters_of_a_choice_are_options_like_others() -> None:
    assert seen("--lam", "0.5", of=Floor) == Floor(tile=Square(lam=0.5))
    assert seen("--tile", "round", "--k", "3", of=Floor) == Floor(tile=Round(k=3))
    result = invoke(lambda settings, run: None, "--k", "3", of=Floor)
    assert result.exit_code == 2
    assert "Error: k is a parameter of tile round, and tile is square" in result.output


def test_a_preset_gives_what_the_given_choice_has() -> None:
    assert seen("--preset", "paper", of=Floor) == Floor(preset="paper", tile=Round(k=7), size=3)
    assert seen("--preset", "paper", "--k", "5", of=Floor) == Floor(preset="paper", tile=Round(k=5), size=3)
    assert seen("--preset", "paper", "--tile", "square", of=Floor) == Floor(preset="paper", size=3)


def test_help_names_the_choices_that_have_a_parameter() -> None:
    text = {line.split()[0]: line for line in help_of(Floor).splitlines() if line.strip().startswith("--")}
    assert text["--tile"].endswith("Kind of tile.  [default: square]")
    assert text["--lam"].endswith("Sparsity. (tile square, round)  [default: 0.1]")
    assert text["--norm"].endswith("Norm. (tile square, round)  [default: held (square), weighted (round)]")
    assert text["--k"].endswith("Count. (tile round)  [default: 32]")


def help_of(settings_class: type) -> str:
    return invoke(lambda settings, run: None, "--help", of=settings_class).output


def test_a_choice_that_is_registered_later_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    @settings
    class Hexagon(Tile):
        """A kind of tile without a default for its own parameter."""

        edge: Annotated[int, "Edge.", Ge(1)]

    made = command(Floor, stage="example")(lambda settings, run: None)
    monkeypatch.setitem(TILES, "hexagon", Hexagon)
    assert "Edge. (tile hexagon)" in CliRunner().invoke(made, ["--help"]).output
    assert CliRunner().invoke(made, ["--tile", "hexagon", "--edge", "3"]).exit_code == 0
    assert newest().data.params == {"preset": "default", "tile": "hexagon", "edge": "3", "size": "1"}
    config = mlflow.artifacts.load_dict(f"{newest().info.artifact_uri}/config.json")
    assert config == {"preset": "default", "tile": "hexagon", "edge": 3, "size": 1}
    refused = CliRunner().invoke(made, ["--tile", "hexagon"])
    assert refused.exit_code == 2 and "Error: edge is required." in refused.output


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
        raise UserError("faces: /nowhere is not a folder.")

    result = invoke(fail)
    assert result.exit_code == 1 and result.output.splitlines()[-1] == "Error: faces: /nowhere is not a folder."
    assert "Traceback" not in result.output
    assert newest().info.status == "FAILED"
    assert newest().data.tags["fsae.reason"] == "faces: /nowhere is not a folder."


def test_a_refused_value_is_a_usage_error_noted_on_the_waiting_run(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = mlflow.set_experiment("e").experiment_id
    for arguments, sentence in (
        (["--lam", "-1"], "lam must be greater than or equal to 0; it is -1.0."),
        (["--batch_sise", "8"], "Did you mean '--batch_size'?"),
        (["--batch_size", "x"], "Invalid value for '--batch_size': 'x' is not a valid integer."),
    ):
        for name in (None, "my own"):
            waiting = mlflow.MlflowClient().create_run(experiment, run_name=name).info.run_id
            monkeypatch.setenv("MLFLOW_RUN_ID", waiting)
            result = invoke(lambda settings, run: None, *arguments)
            assert result.exit_code == 2 and sentence in result.output
            run = mlflow.get_run(waiting)
            assert run.info.status == "FAILED" and sentence in run.data.tags["fsae.reason"]
            assert run.info.run_name == (name or "example (refused)")


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


@pytest.mark.usefixtures("store")
def test_too_little_memory_on_the_gpu_is_a_sentence_that_names_what_to_lower() -> None:
    def stage(settings: Example, run: Run) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80.00 GiB. GPU 0 has a total capacity …")

    result = CliRunner().invoke(command(Example, stage="example")(stage), [])
    assert result.exit_code == 1 and "Traceback" not in result.output
    sentence = "The GPU's memory is too small for this (CUDA out of memory); lower batch_size, or give device=cpu."
    assert sentence in result.output
