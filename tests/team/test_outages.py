"""A team's server that is killed during a training: it returns in time, or after it."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pytest
from click.testing import Result
from mlflow.artifacts import list_artifacts

from fsae_mlflow.sae.saved import digest
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.tracking import registry
from fsae_mlflow.tracking.runs import answers, journal, lifecycle
from fsae_mlflow.tracking.runs.lifecycle import Run
from tests.team.team_server import TeamServer
from tests.test_entrypoints import invoke, newest

Histories = dict[str, list[tuple[int, float]]]
TRAINING = {"variant": "topk", "k": 4, "expansion": 2, "epochs": 12}


@pytest.fixture
def train(template_set: TemplateSet, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Result, Histories]]:
    """Train, do something at the n-th call that logs metrics, and give what the stage logged.

    Each test gives another seed: weights that are registered already are not registered again.
    """
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(journal, "LONGEST_PAUSE_SECONDS", 0.5)
    on_metrics = Run.on_metrics

    def run(at: dict[int, Callable[[], None]], *, seed: int) -> tuple[Result, Histories]:
        logged, n_calls = defaultdict(list), 0

        def noting(run: Run, metrics: Mapping[str, float], step: int = 0, **of: Any) -> None:
            nonlocal n_calls
            n_calls += 1
            if n_calls == 1:
                assert run.journal.flush(20.0)  # the server has the run's beginning
            for name, value in metrics.items():
                logged[name].append((step, float(value)))
            on_metrics(run, metrics, step, **of)
            at.get(n_calls, lambda: None)()

        monkeypatch.setattr(Run, "on_metrics", noting)
        result = invoke("train_sae", templates=template_set.folder, output="trained", seed=seed, **TRAINING)
        assert n_calls > max(at)
        return result, dict(logged)

    return run


def check_complete(logged: Histories) -> None:
    """The newest training has every metric once, in order, and its files and model."""
    run = newest("train_sae")
    client = mlflow.MlflowClient()
    assert run.info.status == "FINISHED" and "fsae.reason" not in run.data.tags
    for name, points in logged.items():
        history = client.get_metric_history(run.info.run_id, name)
        assert [(point.step, point.value) for point in history] == [pytest.approx(point) for point in points], name
    assert {one.path for one in list_artifacts(run_id=run.info.run_id)} >= {"config.json", "sae"}
    version = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    assert [one.tags["fsae.digest"] for one in version] == [digest(Path("trained"))]


def test_the_server_is_killed_and_started_again(team: TeamServer, train: Callable) -> None:
    result, logged = train({4: team.kill, 8: partial(team.start, wait=False)}, seed=1)
    assert result.exit_code == 0, result.output
    check_complete(logged)


def test_the_server_is_gone_for_good(team: TeamServer, train: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (answers, lifecycle, registry):
        monkeypatch.setattr(room, "PATIENCE_SECONDS", 1.0)
    result, logged = train({4: team.kill}, seed=2)
    assert result.exit_code == 3, result.output
    sentence = result.output.splitlines()[-1]
    assert "its results are on disk" in sentence and sentence.endswith("python -m entrypoints.upload trained")
    assert digest(Path("trained"))
    journals = [path.read_text() for path in Path("trained").glob("unlogged-*")]
    assert not [text for text in (*journals, result.output) if team.password in text]

    team.start()
    uploaded = invoke("upload", folder="trained")
    assert uploaded.exit_code == 0, uploaded.output
    check_complete(logged)
