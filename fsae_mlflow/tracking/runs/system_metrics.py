"""The machine's load while a stage runs, which the MLflow UI shows under "System metrics"."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlflow.environment_variables import (
    MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING,
    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL,
)
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from fsae_mlflow.tracking.runs.journal import Point, metric_points

SECONDS_BETWEEN_SAMPLES = 10.0
MOST_HELD = 500


@contextmanager
def system_metrics(
    run_id: str, log: Callable[[list[Point]], None], *, has_metrics: Callable[[], bool]
) -> Iterator[None]:
    """Measure the load every ten seconds within the block, unless MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is false.

    `log` gets the points once `has_metrics` says that the run has metrics of its own, or when they are many: MLflow's
    pages list metrics in the order of their first point, and compare runs by the first one.

    The numbers are those of MLflow's monitor. Its own thread would ask the server after each sample, and end when that
    does not answer.
    """
    if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.name in os.environ and not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        yield
        return
    stopped, held = threading.Event(), list[Point]()
    seconds = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or SECONDS_BETWEEN_SAMPLES

    def sample() -> None:
        monitor, step = None, 1  # metrics of step 0 would be copied to a model that the run logs
        while not stopped.wait(seconds):
            monitor = monitor or SystemMetricsMonitor(run_id)
            monitor.collect_metrics()
            load = {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
            held.extend(metric_points(load, step))
            for one in monitor.monitors:
                one.clear_metrics()
            step += 1
            if has_metrics() or len(held) > MOST_HELD:
                log(held.copy())
                held.clear()

    thread = threading.Thread(target=sample, name="fsae-system-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        if held:
            log(held)
