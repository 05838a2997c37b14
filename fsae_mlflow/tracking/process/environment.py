"""How MLflow behaves in a stage's process, by its own environment variables."""

import logging
import os
from urllib.parse import unquote, urlsplit

from fsae_mlflow.tracking.addresses import without_password

ADDRESS, USERNAME, PASSWORD = "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"

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
    """Set what the user has not set. MLflow reads its logging level when it is imported, so this comes before.

    A password in the server's address goes where MLflow does not print it.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # each retry; a stage says once what is away
    address = urlsplit(os.environ.get(ADDRESS, ""))
    if address.scheme in ("http", "https") and address.username is not None:
        if not os.environ.get(USERNAME):  # which MLflow prefers
            os.environ[USERNAME] = unquote(address.username)
            os.environ[PASSWORD] = unquote(address.password or "")
        os.environ[ADDRESS] = without_password(os.environ[ADDRESS])
