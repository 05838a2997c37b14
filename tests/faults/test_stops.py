"""Ctrl-C in a terminal reaches every process of `mlflow run` at once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlflow

ROOT = Path(__file__).parents[2]


def test_ctrl_c_on_the_whole_group_ends_killed(store: str, tmp_path: Path) -> None:
    artifacts = (tmp_path / "runs").as_uri()
    mlflow.MlflowClient().create_experiment("test", artifact_location=artifacts)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    options = ["--env-manager", "local", "--experiment-name", "test", "-P", f"output={tmp_path / 'out'}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "run", str(ROOT), "-e", "extract", *options],
        env=os.environ | {"MLFLOW_TRACKING_URI": store, "PATH": path},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def run() -> mlflow.entities.Run | None:
        return next(iter(mlflow.search_runs(experiment_names=["test"], output_format="list")), None)

    def wait_for(condition: Callable[[mlflow.entities.Run], bool]) -> None:
        deadline = time.monotonic() + 90
        while not (found := run()) or not condition(found):
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    wait_for(lambda found: "fsae.stage" in found.data.tags)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) != 0
    wait_for(lambda found: found.info.status == "KILLED")
    assert run().data.tags["fsae.reason"] in ("interrupted (Ctrl-C)", "stopped by SIGTERM")
