"""A registered model that a module's tests share: making one takes seconds."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from tests.tracking.models.made import GATED, register


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Iterator[str]:
    """Gives the address of a registered model; the store is the module's own."""
    folder = tmp_path_factory.mktemp("registered")
    shutil.copy(mlflow_template, folder / "mlflow.db")
    former = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.create_experiment("e", artifact_location=(folder / "artifacts").as_uri())
    register(GATED)
    yield "models:/small/1"
    mlflow.set_tracking_uri(former)
