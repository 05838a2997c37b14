"""The machine's load while a stage runs."""

import threading

import pytest

from fsae_mlflow.tracking.system_metrics import system_metrics


@pytest.mark.parametrize("wanted", ["", "true", "false"])
def test_the_load_is_sampled_within_the_block(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    if wanted:
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", wanted)
    found: list[tuple[int, set[str]]] = []
    sampled = threading.Event()

    def on_metrics(metrics: dict[str, float], step: int) -> None:
        found.append((step, set(metrics)))
        if step == 1:
            sampled.set()

    with system_metrics("0" * 32, on_metrics):
        if wanted != "false":
            assert sampled.wait(60)
    n_found = len(found)
    assert [step for step, _ in found] == list(range(n_found))
    assert (n_found > 0) == (wanted != "false")
    assert all("system/cpu_utilization_percentage" in names for _, names in found)
