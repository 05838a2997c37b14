"""Several processes of one study, and processes that are killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.storages._grpc.server import make_server

from fsae_mlflow.errors import UserError
from fsae_mlflow.sweep import workers
from fsae_mlflow.templates.set import TemplateSet
from tests.sweep.searching import search

ROOT = Path(__file__).parents[2]


def start(templates: TemplateSet, **settings: object) -> subprocess.Popen[str]:
    words = [f"{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "tests.sweep.searching", str(templates.folder), *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> list[str]:
    try:
        output, _ = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0
    return output.split("\n")[:-1]


def kill_in_trial(process: subprocess.Popen[str], trial: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line == f"trial {trial}\n":
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)


@pytest.fixture
def address(storage: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if storage != "postgresql":
        return storage
    database = request.getfixturevalue("postgresql")
    monkeypatch.setenv("PGPASSWORD", database.password)
    return database.new_database(with_password=False)


def test_two_processes_share_the_trials(template_set: TemplateSet, tmp_path: Path) -> None:
    given: dict[str, Any] = {"storage": "journal", "output": tmp_path, "n_trials": 5}
    begun = [finished(process) for process in [start(template_set, **given) for _ in range(2)]]
    assert sorted(begun[0] + begun[1]) == sorted(set(begun[0] + begun[1])) and all(begun)
    found = search(template_set, storage="journal", output=str(tmp_path), n_trials=5)
    assert len(found.trials) == 5 == len(begun[0] + begun[1])
    assert len({trial.chosen["lam"] for trial in found.trials}) == 5
    assert len(found.parents) == 2


@pytest.mark.parametrize("storage", ["sqlite", "journal", "postgresql"])
def test_the_trial_of_a_killed_process_is_repeated(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(workers, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(workers, "SECONDS_BETWEEN_LOOKS", 0.1)
    given: dict[str, Any] = {"storage": address, "output": str(tmp_path), "epochs": 40}
    kill_in_trial(start(template_set, n_trials=3, **given), trial=1)
    found = search(template_set, n_trials=3, **given)
    assert len(found.trials) == 3
    states = [trial.state.name for trial in found.study.trials]
    assert states.count("COMPLETE") == 3 and states[1] == "FAIL"
    lost, again = (
        found.study.trials[1],
        next(one for one in found.study.trials[2:] if "failed_trial" in one.system_attrs),
    )
    assert again.params == lost.params and again.user_attrs["folder"] == "trial-0001"


def test_a_stopped_trial_is_repeated_first(template_set: TemplateSet, tmp_path: Path) -> None:
    process = start(template_set, n_trials=2, output=tmp_path, epochs=400)
    assert process.stdout is not None and process.stdout.readline() == "trial 0\n"
    process.send_signal(signal.SIGINT)
    process.wait(60)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert [trial.state.name for trial in study.trials] == ["FAIL", "WAITING"]
    assert workers.ALIVE not in study.trials[0].user_attrs  # a second thread could lock this one out of the file
    assert study.trials[0].params == study.trials[1].params or not study.trials[0].params


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = make_server(RDBStorage(f"sqlite:///{tmp_path / 'proxied.db'}"), "127.0.0.1", port)
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_study_behind_a_proxy_is_shared(template_set: TemplateSet, tmp_path: Path, proxy: str) -> None:
    given: dict[str, Any] = {"storage": proxy, "n_trials": 4}
    other = start(template_set, output=tmp_path / "other", **given)
    found = search(template_set, output=str(tmp_path / "this"), **given)
    finished(other)
    assert len(found.trials) == 4
    folders = [path for place in ("this", "other") for path in (tmp_path / place).glob("trial-*")]
    assert {path.name for path in folders} >= {trial.folder.name for trial in found.front}


def test_a_storage_that_stops_answering_is_named(template_set: TemplateSet, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = make_server(RDBStorage(f"sqlite:///{tmp_path / 'proxied.db'}"), "127.0.0.1", port)
    server.start()

    class Stopping(list[str]):
        def append(self, end: str) -> None:
            server.stop(None).wait()

    with pytest.raises(UserError, match=r"storage=grpc does not answer .* the same command goes on"):
        search(template_set, Stopping(), n_trials=2, storage=f"grpc://127.0.0.1:{port}", output=str(tmp_path / "out"))


def test_a_storage_that_does_not_answer_is_named(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsae_mlflow.sweep.storage.SECONDS_TO_ANSWER", 0.2)
    for storage in ("grpc://127.0.0.1:9", "postgresql://user@127.0.0.1:9/x"):
        with pytest.raises(UserError, match=r"storage=(grpc|postgresql)://") as refusal:
            search(template_set, storage=storage, output=str(tmp_path / storage[:4]))
        assert "@" not in str(refusal.value)


def test_a_trial_beyond_the_number_is_not_run(template_set: TemplateSet, tmp_path: Path) -> None:
    """Another process takes the last place between the look at the study and the new trial."""
    found = search(template_set, n_trials=1, storage="journal", output=str(tmp_path))
    study, begun = found.study, threading.Event()

    def steal(*_: object) -> bool:
        if not begun.is_set():
            begun.set()
            return False
        return True

    ask = study.ask
    study.ask = lambda *given, **more: (ask(), ask(*given, **more))[1]
    ran: list[int] = []
    settings = found.settings
    two = type(settings)(**{**vars(settings), "n_trials": 2})
    workers.work(study, two, lambda trial: ran.append(trial.number), alone=False, enough=steal)
    assert ran == [] and [trial.state.name for trial in study.trials] == ["COMPLETE", "RUNNING", "FAIL"]


def test_a_stop_before_a_trial_begins_repeats_none(template_set: TemplateSet, tmp_path: Path) -> None:
    found = search(template_set, n_trials=1, output=str(tmp_path))
    study, settings = found.study, type(found.settings)(**{**vars(found.settings), "n_trials": 3})
    calls = iter([study.optimize, _stop])
    study.optimize = lambda *given, **more: next(calls)(*given, **more)
    with pytest.raises(KeyboardInterrupt):
        workers.work(study, settings, lambda _: [0.5], alone=True, enough=lambda: False)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]


def _stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_grid_that_two_machines_list_is_searched_once(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"sampler": "grid", "space": "expansion:1|2,k:2", "variant": "topk", "n_trials": 2}
    enqueue = optuna.Study.enqueue_trial

    def twice(study: optuna.Study, *values: Any, skip_if_exists: bool, **more: Any) -> None:
        for _ in range(2):  # each machine looks before the other has listed
            enqueue(study, *values, **more)

    monkeypatch.setattr(optuna.Study, "enqueue_trial", twice)
    found = search(template_set, output=str(tmp_path), **given)
    assert sorted(trial.chosen["expansion"] for trial in found.trials) == [1, 2]


def test_a_trial_that_another_process_has_repeated_is_given_up(
    template_set: TemplateSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a machine was asleep for more than a minute."""
    found = search(template_set, n_trials=1, output=str(tmp_path))
    study, settings = found.study, type(found.settings)(**{**vars(found.settings), "n_trials": 2})

    def taken_over(trial: optuna.Trial) -> list[float]:
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return [0.5]

    rounds = iter([False, True])
    workers.work(study, settings, taken_over, alone=False, enough=lambda: next(rounds))
    assert "another one repeats its trial 1" in caplog.text


def test_processes_of_torchrun_are_refused(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"sweep does not run under torchrun.* storage=journal"):
        search(template_set, n_trials=1, output=str(tmp_path))
