"""The machine's load while a stage runs."""

import threading

import pytest

from fsae_mlflow.tracking.runs.journal import Point
from fsae_mlflow.tracking.runs.system_metrics import system_metrics


@pytest.mark.parametrize("wanted", ["", "true", "false"])
def test_the_load_is_sampled_within_the_block(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    if wanted:
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", wanted)
    found: list[list[Point]] = []
    sampled, has_metrics = threading.Event(), threading.Event()

    def log(points: list[Point]) -> None:
        assert has_metrics.is_set()
        found.append(points)
        sampled.set()

    with system_metrics("0" * 32, log, has_metrics=has_metrics.is_set):
        has_metrics.set()
        if wanted != "false":
            assert sampled.wait(60)
    steps = [step for points in found for name, _, _, step in points if name == "system/cpu_utilization_percentage"]
    assert steps == list(range(1, len(steps) + 1)) and bool(steps) == (wanted != "false")


def test_the_load_does_not_come_before_the_runs_own_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    monkeypatch.setattr("fsae_mlflow.tracking.runs.system_metrics.MOST_HELD", 10**6)
    found: list[str] = []
    asked = threading.Event()

    def has_metrics() -> bool:
        asked.set()
        return False

    with system_metrics("0" * 32, lambda points: found.extend(name for name, *_ in points), has_metrics=has_metrics):
        assert asked.wait(60)
        found.append("own")
    assert found[0] == "own" and found[1].startswith("system/")
