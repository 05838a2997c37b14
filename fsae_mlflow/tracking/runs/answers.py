"""Whether the tracking server answers, what it says, and how to wait for it."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import mlflow
from mlflow.exceptions import MlflowException

from fsae_mlflow.tracking.addresses import without_password

PATIENCE_SECONDS = 60.0
SECONDS_BETWEEN_TRIES = 1.0
TRY_LATER = (408, 429)

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


def patiently(call: Callable[[], Answer]) -> Answer:
    """What `call` gives, which is called again for 60 seconds while the server does not answer.

    For a stage that has started, and for calls that may arrive twice.

    Raises: what `call` raises where the server refuses, and where it does not answer in time.
    """
    start, told = time.monotonic(), False
    while True:
        try:
            return call()
        except (MlflowException, OSError) as error:
            if is_refusal(error) or time.monotonic() - start >= PATIENCE_SECONDS:
                raise
            if not told:
                logger.warning("%s does not answer: %s; trying again for %g seconds.",
                               server(), said(error), PATIENCE_SECONDS)  # fmt: skip
                told = True
        time.sleep(SECONDS_BETWEEN_TRIES)


def is_refusal(error: Exception) -> bool:
    """Whether the server has answered, and would answer the same again; else it may answer later."""
    status = _status(error)
    if status is None and isinstance(error, OSError):
        return isinstance(error, FileNotFoundError | PermissionError)
    if status is None and isinstance(error, TypeError | ValueError | LookupError):
        return True
    status = status or _status(error.__context__)  # boto3 raises an error of its own in place of the store's
    return status is not None and 400 <= status < 500 and status not in TRY_LATER


def _status(error: BaseException | None) -> int | None:
    """The HTTP status that an error of MLflow, requests or boto has."""
    if isinstance(error, MlflowException):
        return error.get_http_status_code()
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return getattr(response, "status_code", None)


def said(error: BaseException) -> str:
    """What an error says, in one line of moderate length, without the server's user name and password."""
    text = " ".join(str(error).split()).replace(str(mlflow.get_tracking_uri()), server())
    return (text if len(text) <= 240 else f"{text[:240]}…") or type(error).__name__


def server() -> str:
    """The address of the tracking server or store, without user name and password."""
    return without_password(str(mlflow.get_tracking_uri()))
