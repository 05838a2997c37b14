"""Keep a stopped run KILLED: `mlflow run` sets it to FAILED after the run's process has ended.

MLflow 3.17 means to leave an ended run as it is, but compares its status, a word, with numbers (mlflow.projects).
"""

import os
import subprocess
import sys
from contextlib import suppress

import psutil

SECONDS_TO_WAIT = 60


def keep_killed(run_id: str) -> None:
    """Start a process that waits for the end of this process' parent, and sets the run to KILLED then."""
    subprocess.Popen(
        [sys.executable, "-m", "fsae_mlflow.tracking.process.killed", str(os.getppid()), run_id],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _main(parent: int, run_id: str) -> None:
    from mlflow.tracking import MlflowClient

    with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
        psutil.Process(parent).wait(SECONDS_TO_WAIT)
    client = MlflowClient()
    found = client.get_run(run_id).info
    if found.status == "FAILED":
        client.set_terminated(run_id, "KILLED", found.end_time)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
