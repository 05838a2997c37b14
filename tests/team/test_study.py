"""A study in PostgreSQL, which processes on all machines can share."""

from pathlib import Path
from typing import Any

import pytest

from fsae_mlflow.templates.set import TemplateSet
from tests.sweep.searching import search
from tests.sweep.test_workers import finished, start
from tests.team.postgresql import Postgresql


def test_two_processes_share_a_study(
    postgresql: Postgresql, template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", postgresql.password)
    address = postgresql.new_database(with_password=False)
    given: dict[str, Any] = {"storage": address, "n_trials": 5}
    processes = [start(template_set, output=tmp_path / name, **given) for name in ("one", "other")]
    begun = [line for process in processes for line in finished(process)]
    assert sorted(begun) == [f"trial {number}" for number in range(5)]
    found = search(template_set, output=str(tmp_path / "third"), **given)
    assert len(found.trials) == 5 == len({trial.chosen["lam"] for trial in found.trials})
