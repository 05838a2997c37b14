"""The machine's load while a stage runs, which the MLflow UI shows under "System metrics"."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.environment_variables import (
    MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING,
    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL,
)
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from fsae_mlflow.progress import OnMetrics

SECONDS_BETWEEN_SAMPLES = 10.0


@contextmanager
def system_metrics(run_id: str, on_metrics: OnMetrics) -> Iterator[None]:
    """Give `on_metrics` the load every ten seconds within the block, unless MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false.

    The numbers are those of MLflow's monitor. Its own thread would ask the server after each sample, and end when that
    does not answer.
    """
    if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.name in os.environ and not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        yield
        return
    stopped = threading.Event()
    seconds = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or SECONDS_BETWEEN_SAMPLES

    def sample() -> None:
        monitor, step = None, 0
        while not stopped.wait(seconds):
            monitor = monitor or SystemMetricsMonitor(run_id)
            monitor.collect_metrics()
            on_metrics({f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}, step)
            for one in monitor.monitors:
                one.clear_metrics()
            step += 1

    thread = threading.Thread(target=sample, name="fsae-system-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
