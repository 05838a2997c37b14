"""A registered model behind HTTP."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow

from tests.servers import free_port, until_answered

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # MLflow starts uvicorn by its name


@contextmanager
def served(model: str) -> Iterator[str]:
    """Serve the model as `mlflow models serve` does, and give the address that requests go to."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "-p", str(port), "--env-manager", "local"],
        env=os.environ | {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "PATH": PATH},
    )
    try:
        until_answered(f"http://127.0.0.1:{port}/ping", seconds=180)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        server.terminate()
        server.wait(30)


def post(address: str, body: bytes, kind: str = "application/json") -> tuple[int, Any]:
    """The status and the JSON that a server answers."""
    request = urllib.request.Request(address, data=body, headers={"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
