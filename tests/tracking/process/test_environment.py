"""The environment that a stage gives MLflow."""

import os

import pytest

from fsae_mlflow.tracking.process.environment import ADDRESS, PASSWORD, USERNAME, set_defaults


@pytest.mark.parametrize(
    ("address", "former", "left", "user", "password"),
    [
        ("https://ann:p%40ss@host:5000/mlflow", "", "https://host:5000/mlflow", "ann", "p@ss"),
        ("https://ann:p%40ss@host", "bob", "https://host", "bob", "bob"),
        ("https://host", "bob", "https://host", "bob", "bob"),
        ("postgresql://ann:pass@host/mlflow", "", "postgresql://ann:pass@host/mlflow", "", ""),
    ],
)
def test_a_password_leaves_the_servers_address(
    address: str, former: str, left: str, user: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ((ADDRESS, address), (USERNAME, former), (PASSWORD, former)):
        monkeypatch.setenv(name, value)
    set_defaults()
    assert (os.environ[ADDRESS], os.environ[USERNAME], os.environ[PASSWORD]) == (left, user, password)
