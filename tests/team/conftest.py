"""A team's server for the tests of this folder."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service import utils as tracking_service

from tests.team.postgresql import Postgresql
from tests.team.team_server import TeamServer, running_team_server


@pytest.fixture(scope="session")
def running(postgresql: Postgresql, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamServer]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the bucket's server tells every request
    with running_team_server(tmp_path_factory.mktemp("team"), postgresql) as server:
        yield server


@pytest.fixture
def team(running: TeamServer, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TeamServer:
    """The team's server as this process's tracking server, in an experiment of the test's own."""
    if running.process is None:
        running.start()
    # The user and the password stand in the address, where most can be read by mistake.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.address.replace("//", f"//ann:{running.password}@"))
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # the first stage sets them
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    monkeypatch.setattr(tracking_service, "_tracking_uri", None)  # as in a new process
    monkeypatch.setattr(fluent, "_active_experiment_id", None)
    return running
