"""The journal: in order, once, without waiting; and nothing lost when the server or the disk fails."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.tracking import MlflowClient

from fsae_mlflow.tracking.process.owners import process_tags
from fsae_mlflow.tracking.runs import journal as module
from fsae_mlflow.tracking.runs.journal import Journal, metric_points
from fsae_mlflow.tracking.runs.sending import stamp_of

AWAY = MlflowException("API request failed: connection refused", INTERNAL_ERROR)


class Server(MlflowClient):
    """Stands for MlflowClient: keeps the metrics that arrive, and fails as it is told."""

    def __init__(self) -> None:
        self.arrived: list[float] = []
        self.requests = 0
        self.answers = threading.Event()
        self.answers.set()
        self.failures: list[Exception] = []

    def log_batch(self, run_id: str, metrics: Any) -> None:
        self.requests += 1
        self.answers.wait(20)
        if self.failures:
            raise self.failures.pop(0)
        self.arrived += [metric.value for metric in metrics]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def journal(store: str, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Journal:
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 0.01)
    made = Journal("abc", tmp_path / "out", stage="test")
    made.client = server
    return made


def put(journal: Journal, *values: float) -> None:
    for value in values:
        journal.put({"do": "metrics", "metrics": metric_points({"x": float(value)}, int(value))})


def waiting(journal: Journal) -> list[float]:
    return [json.loads(line)["metrics"][0][1] for line in journal.path.read_text().splitlines()[1:]]


def test_entries_arrive_in_order_and_the_file_is_deleted(journal: Journal, server: Server) -> None:
    put(journal, *range(50))
    assert journal.close(10.0) == ""
    assert server.arrived == list(range(50))
    assert not journal.path.parent.exists()


def test_a_server_that_hangs_keeps_nobody_waiting(journal: Journal, server: Server) -> None:
    server.answers.clear()
    put(journal, *range(2500))  # would hang here if it waited
    assert server.requests <= 1
    server.answers.set()
    assert journal.close(10.0) == ""
    assert server.arrived == list(range(2500))
    assert server.requests <= 5  # what has waited goes in large requests


def test_a_server_that_returns_gets_everything_once(journal: Journal, server: Server, caplog: Any) -> None:
    server.failures = [AWAY, OSError("reset"), AWAY]
    put(journal, 1, 2, 3)
    assert journal.close(10.0) == ""
    assert server.arrived == [1, 2, 3]
    said = [record.message for record in caplog.records]
    assert [("does not answer" in line, "answers again" in line) for line in said] == [(True, False), (False, True)]


def test_what_a_lost_server_lacks_is_in_the_file_and_in_the_sentence(journal: Journal, server: Server) -> None:
    put(journal, 1)
    assert journal.flush(10.0)
    server.failures = [AWAY] * 10_000
    put(journal, 2, 3)
    sentence = journal.close(0.1)
    assert "2 metric entries could not be logged" in sentence and "connection refused" in sentence
    assert sentence.endswith(f"python -m entrypoints.upload {journal.folder}")
    assert waiting(journal) == [2, 3]


def test_a_refused_entry_is_kept_and_the_next_ones_go_on(journal: Journal, server: Server) -> None:
    server.failures = [MlflowException("no such run", INVALID_PARAMETER_VALUE)]
    put(journal, 1)
    while not journal.refused:
        journal.flush(10.0)
    put(journal, 2)
    assert "1 metric entries could not be logged" in journal.close(10.0)
    assert server.arrived == [2] and waiting(journal) == [1]


def test_a_file_that_a_proxy_refuses_keeps_nothing_back(journal: Journal, server: Server) -> None:
    response = requests.Response()
    response.status_code = 413
    server.failures = [requests.HTTPError("413 Request Entity Too Large", response=response)] * 2
    put(journal, 1)
    while not journal.refused:
        journal.flush(10.0)
    put(journal, 2)
    while len(journal.refused) < 2:
        journal.flush(10.0)
    put(journal, 3)
    assert "2 metric entries could not be logged" in journal.close(10.0)
    assert server.arrived == [3] and waiting(journal) == [1, 2]


@pytest.mark.parametrize("closed", [False, True])  # killed: the header has the same length; else a shorter one
def test_a_run_that_is_started_again_sends_what_an_earlier_start_left(
    closed: bool, journal: Journal, server: Server, tmp_path: Path
) -> None:
    same, changed = tmp_path / "same.txt", tmp_path / "changed.txt"
    server.failures = [AWAY] * 10_000
    put(journal, 1)
    for path in (same, changed):
        path.write_text("file")
        journal.put({"do": "path", "path": str(path), "folder": None, "stamp": stamp_of(path)})
    journal.put({"do": "tags", "values": {"fsae.reason": "stopped"}})
    journal.put({"do": "tags", "values": {"kept": "yes"}})
    journal.put({"do": "end", "status": "KILLED", "time": 1})
    changed.write_text("another text")
    if closed:
        assert journal.close(0.0)
    else:
        journal.stopped = True
        with journal.path.open("a") as file:
            file.write('{"do": "met')
    again = Journal("abc", tmp_path / "out", stage="test")
    again.client = away = Server()
    away.failures = [AWAY] * 10_000
    put(again, 2)
    lines = [json.loads(line) for line in again.path.read_text().splitlines()]
    assert lines[0]["process"] == process_tags()
    found = [entry.get("path") or entry.get("values") or entry["metrics"][0][1] for entry in lines[1:]]
    assert found == [1.0, str(same), {"kept": "yes"}, 2.0]
    assert "2 metric entries, 1 artifacts, 1 tag sets" in again.close(0.0)


def test_what_an_earlier_start_left_is_sent_first(journal: Journal, server: Server, tmp_path: Path) -> None:
    server.failures = [AWAY] * 10_000
    put(journal, 1, 2)
    assert journal.close(0.0)
    again = Journal("abc", tmp_path / "out", stage="test")
    again.client = present = Server()
    put(again, 3)
    assert again.close(10.0) == "" and present.arrived == [1, 2, 3] and not again.path.exists()


def test_a_full_disk_leaves_what_an_earlier_start_left(
    journal: Journal, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.failures = [AWAY] * 10_000
    put(journal, 1)
    assert journal.close(0.0)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "atomic_write", full)
    again = Journal("abc", tmp_path / "out", stage="test")
    again.client = present = Server()
    put(again, 2)
    assert again.close(10.0) == "" and present.arrived == [2]
    assert waiting(again) == [1]


def test_a_full_disk_loses_nothing(journal: Journal, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    put(journal, 1)
    assert journal.flush(10.0)
    opened = Path.open

    def half_a_line(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        file = opened(path, mode, *rest, **named)
        if "+" in mode:
            file.seek(0, 2)
            file.write('{"do": "met')
            file.close()
            raise OSError(28, "No space left on device")
        return file

    server.answers.clear()
    with monkeypatch.context() as full:
        full.setattr(Path, "open", half_a_line)
        put(journal, 2, 3)
    put(journal, 4)
    server.answers.set()
    assert journal.close(10.0) == ""
    assert server.arrived == [1, 2, 3, 4]


def test_a_killed_process_leaves_what_had_not_arrived(journal: Journal, server: Server) -> None:
    server.failures = [AWAY] * 10_000
    put(journal, 1, 2)
    assert waiting(journal) == [1, 2]  # on disk at once, not at the end
    journal.close(0.0)
