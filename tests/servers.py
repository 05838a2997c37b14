"""Servers that tests start: a free port, waiting until there is an answer, and MLflow's."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

APPLICATION = "mlflow.server.fastapi_app:app"


def free_port() -> int:
    """A port of this machine that no server has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def until_answered(address: str, *, seconds: float = 60.0) -> None:
    """Wait until a server answers at `address`."""
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except OSError:
            assert time.monotonic() < end, f"no server answers at {address}"
            time.sleep(0.1)


class MlflowServer:
    """An MLflow server that can be killed and started again at the same address.

    It is what `mlflow server` starts, without that command's own process: that halves the time to the first answer.
    """

    def __init__(self, store: str, artifacts: str, log: Path, *, application: str = APPLICATION, **more: str) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.command = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(self.port)]
        self.command += ["--log-level", "warning", *application.split()]
        self.environment = (
            os.environ
            | more
            | {
                "_MLFLOW_SERVER_FILE_STORE": store,
                "_MLFLOW_SERVER_REGISTRY_STORE": store,
                "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
                "_MLFLOW_SERVER_ARTIFACT_DESTINATION": artifacts,
                "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
                "_MLFLOW_SGI_NAME": "uvicorn",
                "MLFLOW_TRACKING_URI": store,
            }
        )
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=log)
        if wait:
            until_answered(f"{self.address}/health")

    def kill(self) -> None:
        """End it without a chance to finish a request."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
