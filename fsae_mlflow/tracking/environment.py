"""How MLflow behaves in a stage's process, by its own environment variables."""

import os

DEFAULTS = {
    # MLflow's own defaults try one request for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    # A stage shows its own progress.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def set_defaults() -> None:
    """Set what the user has not set. MLflow reads its logging level when it is imported, so this comes before."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
