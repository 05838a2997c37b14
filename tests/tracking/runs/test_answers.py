"""What counts as a refusal, and how long a call is repeated."""

from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

from fsae_mlflow.tracking.runs import answers
from fsae_mlflow.tracking.runs.answers import is_refusal, patiently

REFUSAL = MlflowException("no such run", INVALID_PARAMETER_VALUE)
AWAY = MlflowException("later", TEMPORARILY_UNAVAILABLE)


def of_proxy(status: int) -> Exception:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status}", response=response)


def of_store(status: int) -> Exception:
    """As botocore's ClientError."""
    error = Exception(f"{status}")
    error.response = {"ResponseMetadata": {"HTTPStatusCode": status}}  # pyright: ignore[reportAttributeAccessIssue]
    return error


def within(error: Exception) -> Exception:
    """As boto3's S3UploadFailedError, which has no status."""
    try:
        try:
            raise error
        except Exception:
            raise RuntimeError("Failed to upload")  # noqa: B904
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(
    "error",
    [
        REFUSAL,
        of_proxy(403),
        of_proxy(413),
        of_store(403),
        within(of_store(403)),
        PermissionError(13, "Permission denied"),
        FileNotFoundError(2, "No such file"),
        ValueError("wrong"),
    ],
    ids=repr,
)
def test_an_answer_that_stays_is_a_refusal(error: Exception) -> None:
    assert is_refusal(error)


@pytest.mark.parametrize(
    "error",
    [
        AWAY,
        of_proxy(408),
        of_proxy(429),
        of_proxy(502),
        of_store(503),
        within(of_store(503)),
        requests.ConnectionError("refused"),
        OSError(5, "Input/output error"),
        RuntimeError("unknown"),
    ],
    ids=repr,
)
def test_what_may_pass_is_none(error: Exception) -> None:
    assert not is_refusal(error)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(answers, "SECONDS_BETWEEN_TRIES", 0.0)
    made: list[Exception | str] = []

    def call() -> str:
        answer = made.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    call.made = made  # pyright: ignore[reportFunctionMemberAccess]
    return call


def test_a_call_is_repeated_until_there_is_an_answer(calls: Any, caplog: pytest.LogCaptureFixture) -> None:
    calls.made += [AWAY, ConnectionResetError("reset"), "answer"]
    assert patiently(calls) == "answer"
    assert [record.message.count("does not answer") for record in caplog.records] == [1]


def test_a_refusal_is_not_asked_again(calls: Any) -> None:
    calls.made += [REFUSAL, "answer"]
    with pytest.raises(MlflowException, match="no such run"):
        patiently(calls)


def test_a_call_is_not_repeated_for_ever(calls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "PATIENCE_SECONDS", 0.0)
    calls.made += [AWAY, "answer"]
    with pytest.raises(MlflowException, match="later"):
        patiently(calls)
