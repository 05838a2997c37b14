"""A tracking server that stops during a stage: it returns in time, or it does not."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Annotated, Any

import mlflow
import pytest
from click.testing import CliRunner
from filelock import FileLock

from entrypoints.upload import main as upload
from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import settings
from fsae_mlflow.sae.saved import load_sae
from fsae_mlflow.tracking import registry
from fsae_mlflow.tracking.command import command
from fsae_mlflow.tracking.registry import register_sae
from fsae_mlflow.tracking.runs import answers, journal, lifecycle
from fsae_mlflow.tracking.runs.journal import Journal
from fsae_mlflow.tracking.runs.lifecycle import Run
from fsae_mlflow.tracking.upload import upload as upload_journals
from tests.servers import MlflowServer

GATED = Path(__file__).parents[1] / "fixtures" / "version_0_1" / "saes" / "gated"


@settings
class Stage:
    """A stage with an output folder."""

    output: Annotated[str, "Output folder."] = "out"


@pytest.fixture
def server(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowServer]:
    made = MlflowServer(store, str(tmp_path / "artifacts"), tmp_path / "server.log")
    made.start()
    mlflow.set_tracking_uri(made.address)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(journal, "LONGEST_PAUSE_SECONDS", 0.2)
    for room in (answers, lifecycle, registry):
        monkeypatch.setattr(room, "PATIENCE_SECONDS", 3.0)
    yield made
    made.kill()
    mlflow.set_tracking_uri(store)


def invoke(function: Callable[[Any, Run], None]) -> Any:
    return CliRunner().invoke(command(Stage, stage="example")(function), [])


def steps(run_id: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in mlflow.MlflowClient().get_metric_history(run_id, "x")]


def test_a_server_that_stops(server: MlflowServer, tmp_path: Path) -> None:
    found: list[str] = []
    result_file = tmp_path / "result.txt"
    result_file.write_text("done")

    def returns(settings: Stage, run: Run) -> None:
        found.append(run.id)
        for step in range(20):
            if step == 5:
                server.kill()
            run.on_metrics({"x": float(step)}, step)
        server.start()

    def stays_away(settings: Stage, run: Run) -> None:
        found.append(run.id)
        run.on_metrics({"x": 0.0}, 0)
        assert run.journal.flush(20.0)
        server.kill()
        for step in range(1, 20):
            run.on_metrics({"x": float(step)}, step)
        run.log_path(result_file, "files")
        run.log_table([{"a": 1}, {"a": 2}], "table.json")
        run.set_tags({"done": "yes"})
        register_sae(run, load_sae(GATED), GATED, name="small")

    assert invoke(returns).exit_code == 0
    assert steps(found[0]) == [(step, float(step)) for step in range(20)]
    assert mlflow.get_run(found[0]).info.status == "FINISHED"
    assert not list(tmp_path.rglob("unlogged-*"))

    result = invoke(stays_away)
    assert result.exit_code == 3 and "Traceback" not in result.output, result.output
    sentence = result.output.splitlines()[-1]
    assert "19 metric entries, 2 artifacts, 1 tag sets, the registered model, the run's end could not" in sentence
    assert sentence.endswith("Log them later with: python -m entrypoints.upload out")

    refused = CliRunner().invoke(upload, ["out"])
    assert refused.exit_code == 1 and "19 metric entries" in refused.output.splitlines()[-1]

    server.start()
    done = CliRunner().invoke(upload, ["out"])
    assert done.exit_code == 0, done.output
    run = mlflow.get_run(found[1])
    assert steps(found[1]) == [(step, float(step)) for step in range(20)]
    assert run.info.status == "FINISHED" and run.data.tags["done"] == "yes" and "fsae.reason" not in run.data.tags
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/files/result.txt") == "done"
    assert mlflow.load_table("table.json", run_ids=[found[1]])["a"].tolist() == [1, 2]
    version = mlflow.MlflowClient().get_model_version_by_alias("small", "challenger")
    assert version.run_id == found[1] and str(version.version) == "1"
    assert CliRunner().invoke(upload, ["out"]).output.splitlines()[-1].endswith("nothing waits to be logged there.")


def test_a_server_that_is_away_from_the_start_is_one_sentence(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HTTP_REQUEST_MAX_RETRIES", "0"), ("HTTP_REQUEST_TIMEOUT", "2"), ("TRACKING_USERNAME", "ann")):
        monkeypatch.setenv(f"MLFLOW_{name}", value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    mlflow.set_tracking_uri("http://user:secret@127.0.0.1:9")
    result = invoke(lambda settings, run: None)
    mlflow.set_tracking_uri(store)
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert "The tracking server http://127.0.0.1:9 cannot start a run" in result.output
    assert "secret" not in result.output


@pytest.mark.usefixtures("store")
def test_the_journal_of_a_machine_that_is_gone_is_uploaded_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    client = mlflow.MlflowClient()
    run_id = client.create_run(mlflow.set_experiment("e").experiment_id).info.run_id
    of_container = Journal(run_id, Path("out"), stage="example")
    of_container.header = of_container._header({"fsae.host": "container", "fsae.process": '{"pid": 1, "started": 1.0}'})
    of_container.halted = True
    monkeypatch.setattr(Journal, "_work", lambda journal: None)  # it was killed before anything was sent
    of_container.put({"do": "tags", "values": {"a": "b"}})

    refused = CliRunner().invoke(upload, ["out"])
    assert refused.exit_code == 1 and "process 1 on container, which may still run" in refused.output
    assert "--force true" in refused.output and of_container.path.exists()
    done = CliRunner().invoke(upload, ["out", "--force", "true"])
    assert done.exit_code == 0, done.output
    run = client.get_run(run_id)
    assert run.data.tags["a"] == "b" and run.info.status == "KILLED" and not of_container.path.exists()


@pytest.mark.usefixtures("store")
def test_a_second_upload_sends_nothing_again(tmp_path: Path) -> None:
    journal = tmp_path / "unlogged-1.jsonl"
    journal.write_text("")
    with ThreadPoolExecutor() as pool:
        with FileLock(tmp_path / f".{journal.name}.lock"):
            second = pool.submit(upload_journals, tmp_path)
            assert wait([second], timeout=1).not_done
            journal.unlink()  # the first has sent it
        assert second.result(60) == []


@pytest.mark.parametrize("content", ["", "half a li", "[]\n", "{}\n"])
def test_a_damaged_journal_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "unlogged-1.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"unlogged-1\.jsonl is damaged .*; delete it to give up what it held"):
        upload_journals(tmp_path)


def test_the_folder_of_a_run_finds_the_journal_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for number, named in enumerate((folder, tmp_path / "other")):
        (tmp_path / f"unlogged-{number}.jsonl").write_text(json.dumps([str(named.resolve())]))
    with pytest.raises(UserError, match=r"unlogged-0\.jsonl is damaged") as refusal:
        upload_journals(folder)
    assert "unlogged-1" not in str(refusal.value)
