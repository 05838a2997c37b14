"""Several processes of one study, and processes that are killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.storages._grpc.server import make_server
from optuna.trial import TrialState
from sqlalchemy import create_engine, text

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.locks import only_writer
from fsae_mlflow.sweep import workers
from fsae_mlflow.sweep.found import FOLDER, Sweep
from fsae_mlflow.sweep.study import FAILED, N_LOST
from fsae_mlflow.templates.set import TemplateSet
from tests.sweep.searching import search, with_trials
from tests.team.postgresql import Postgresql

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
    given: dict[str, Any] = {"storage": address, "output": str(tmp_path), "epochs": 200}
    kill_in_trial(start(template_set, n_trials=3, **given), trial=1)
    found = search(template_set, n_trials=3, **given)
    assert len(found.trials) == 3
    states = [trial.state.name for trial in found.study.trials]
    assert states.count("COMPLETE") == 3 and states[1] == "FAIL"
    lost, again = (
        found.study.trials[1],
        next(one for one in found.study.trials[2:] if one.user_attrs.get(N_LOST)),
    )
    assert again.params == lost.params and again.user_attrs["folder"] == "trial-0001"


def test_a_trial_whose_process_was_only_stopped_is_repeated_elsewhere(
    template_set: TemplateSet, tmp_path: Path
) -> None:
    """As after Ctrl-Z, or in a virtual machine that was suspended: it goes on, and still writes to its folder."""
    given: dict[str, Any] = {"storage": "journal", "output": str(tmp_path)}
    first = search(template_set, n_trials=1, **given)
    first.study.enqueue_trial(first.study.trials[0].params, user_attrs={FOLDER: "trial-0000"})
    with only_writer(tmp_path / "trial-0000"):
        found = search(template_set, n_trials=2, **given)
    assert [trial.folder.name for trial in found.trials] == ["trial-0000", "trial-0001"]
    assert found.trials[1].metrics["heldout/fvu"] == found.trials[0].metrics["heldout/fvu"]


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
    assert work_beyond(found) == ["COMPLETE", "RUNNING", "FAIL"]


def test_a_combination_beyond_the_number_is_left_for_later(template_set: TemplateSet, tmp_path: Path) -> None:
    given: dict[str, Any] = {"sampler": "grid", "space": "lr:0.01|0.02|0.03", "variant": "topk", "k": 4}
    found = search(template_set, n_trials=1, storage="journal", output=str(tmp_path), **given)
    assert work_beyond(found) == ["COMPLETE", "RUNNING", "FAIL", "WAITING"]
    found.study.tell(1, state=TrialState.FAIL)  # its process was killed before it queued the trial again
    found = search(template_set, n_trials=3, storage="journal", output=str(tmp_path), **given)
    assert [trial.chosen["lr"] for trial in found.trials] == [0.01, 0.03, 0.02]


def test_a_combination_that_cannot_be_trained_is_tried_once(template_set: TemplateSet, tmp_path: Path) -> None:
    given: dict[str, Any] = {"sampler": "grid", "space": "lr:0.01|0.02", "variant": "topk", "k": 4}
    given |= {"storage": "journal", "output": str(tmp_path)}
    found = search(template_set, n_trials=1, **given)

    def fail(_: optuna.Trial) -> list[float]:
        raise UserError("the loss is not finite.")

    workers.work(found.study, with_trials(found, 2), fail, alone=False, enough=lambda: False)
    found = search(template_set, n_trials=2, **given)
    assert [trial.state.name for trial in found.study.trials] == ["COMPLETE", "FAIL"]
    assert found.study.trials[1].user_attrs[FAILED] == "the loss is not finite."


def work_beyond(found: Sweep) -> list[str]:
    """The states of the trials after another process took the last of two."""
    study, ran = found.study, []
    ask, rounds = study.ask, iter([False, True])
    study.ask = lambda: (ask(), ask())[1]
    workers.work(study, with_trials(found, 2), ran.append, alone=False, enough=lambda: next(rounds))
    assert ran == []
    return [trial.state.name for trial in study.trials]


@pytest.mark.parametrize("behind", [-86400.0, 86400.0])
def test_heartbeats_are_judged_by_the_own_clock(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: float
) -> None:
    """The other machine's clock is a day off; it is heard for a hundred seconds."""
    found = search(template_set, n_trials=1, storage="journal", output=str(tmp_path))
    other, now, ran = found.study.ask(), 0.0, []

    def sleep(_: float) -> None:
        nonlocal now
        now += 5
        assert now < 1000
        if now <= 100:
            other.set_user_attr(workers.ALIVE, time.time() - behind + now)

    def run(_: optuna.Trial) -> list[float]:
        ran.append(now)
        return [0.5]

    clock = SimpleNamespace(sleep=sleep, monotonic=lambda: now, time=time.time)
    monkeypatch.setattr(workers, "time", clock)
    workers.work(found.study, with_trials(found, 2), run, alone=False, enough=lambda: False)
    assert ran == [100 + workers.GRACE_SECONDS]


def test_a_database_may_close_connections(
    template_set: TemplateSet, tmp_path: Path, postgresql: Postgresql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is started again, or a firewall that drops idle ones."""
    monkeypatch.setenv("PGPASSWORD", postgresql.password)
    address = postgresql.new_database(with_password=False)
    found = search(template_set, n_trials=1, storage=address, output=str(tmp_path))

    def run(_: optuna.Trial) -> list[float]:
        with create_engine(address).connect() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        return [0.5]

    workers.work(found.study, with_trials(found, 2), run, alone=True, enough=lambda: False)
    assert [trial.state.name for trial in found.study.trials] == ["COMPLETE", "COMPLETE"]


def test_a_grid_that_two_machines_list_is_searched_once(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"sampler": "grid", "space": "expansion:1|2,k:2", "variant": "topk", "n_trials": 2}
    enqueue = optuna.Study.enqueue_trial

    def twice(study: optuna.Study, *values: Any, **more: Any) -> None:
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
    study, settings = found.study, with_trials(found, 2)

    def taken_over(trial: optuna.Trial) -> list[float]:
        study.tell(trial.number, state=TrialState.FAIL)
        return [0.5]

    rounds = iter([False, True])
    workers.work(study, settings, taken_over, alone=False, enough=lambda: next(rounds))
    assert "another process repeats its trial 1." in caplog.text


def test_processes_of_torchrun_are_refused(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"sweep does not run under torchrun.* storage=journal"):
        search(template_set, n_trials=1, output=str(tmp_path))
