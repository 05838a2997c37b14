"""SAEs in the model registry: what a registered model carries, and that models of version 0.1 load."""

import ast
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import fsae_mlflow
from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.saved import digest, load_sae
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.tracking.registry import REQUIREMENTS, register_sae
from fsae_mlflow.tracking.runs import Run

FIXTURES = Path(__file__).parents[1] / "fixtures" / "version_0_1"
GATED = FIXTURES / "saes" / "gated"


@pytest.fixture
def templates() -> np.ndarray:
    return TemplateSet.open(FIXTURES / "templates").templates


def test_a_model_of_version_0_1_loads(templates: np.ndarray) -> None:
    expected = load_file(GATED / "expected.safetensors")
    model = mlflow.pyfunc.load_model(str(FIXTURES / "model"))
    np.testing.assert_allclose(model.predict(templates), expected["features"], rtol=1e-5, atol=1e-6)
    reconstruction = model.predict(templates, params={"output": "reconstruction"})
    np.testing.assert_allclose(reconstruction, expected["reconstruction"], rtol=1e-5, atol=1e-6)


LOAD = """
import sys
import mlflow, numpy as np
model = mlflow.pyfunc.load_model("models:/small@best")
np.save("features.npy", model.predict(np.load("templates.npy")))
for module in list(sys.modules.values()):
    if module.__name__.split(".")[0] == "fsae_mlflow":
        print(module.__file__)
"""


@pytest.mark.usefixtures("store")
def test_a_registered_model_has_its_version_its_code_and_its_requirements(
    templates: np.ndarray, tmp_path: Path
) -> None:
    with mlflow.start_run(experiment_id=mlflow.set_experiment("e").experiment_id) as active:
        assert register_sae(Run(active, "test"), load_sae(GATED), GATED, name="") == ""
        number = register_sae(Run(active, "test"), load_sae(GATED), GATED, name="small", aliases=("best",))
    version = mlflow.MlflowClient().get_model_version_by_alias("small", "best")
    assert number == str(version.version) == "1"
    assert version.tags == {"fsae_mlflow": fsae_mlflow.__version__, "fsae.digest": digest(GATED)}
    assert mlflow.models.get_model_info("models:/small/1").metadata == {"fsae_mlflow": fsae_mlflow.__version__}

    # A process of its own, in a folder without the project, runs the code that the model carries.
    np.save(tmp_path / "templates.npy", templates)
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        np.load(tmp_path / "features.npy"), load_file(GATED / "expected.safetensors")["features"], rtol=1e-5, atol=1e-6
    )
    files = [Path(line) for line in done.stdout.splitlines() if line.endswith(".py")]
    assert files and all(path.is_relative_to(tmp_path) for path in files)
    known = sys.stdlib_module_names | {"fsae_mlflow"} | {name.replace("-", "_") for name in REQUIREMENTS}
    assert set().union(*map(imported, files)) <= known


@pytest.mark.usefixtures("store")
def test_a_registered_model_leaves_out_features(templates: np.ndarray) -> None:
    sae = load_sae(GATED)
    with mlflow.start_run(experiment_id=mlflow.set_experiment("e").experiment_id) as active:
        register_sae(Run(active, "test"), sae, GATED, name="small")
    model = mlflow.pyfunc.load_model("models:/small/1")
    features = model.predict(templates)
    fired = np.argsort(-(features > 0).sum(axis=0))[:2].tolist()
    without = {"without": f"{fired[0]}, {fired[1]}"}
    left = model.predict(templates, params=without)
    assert (features[:, fired] > 0).any() and not left[:, fired].any()
    features[:, fired] = 0
    np.testing.assert_array_equal(left, features)
    reconstruction = model.predict(templates, params=without | {"output": "reconstruction"})
    np.testing.assert_allclose(reconstruction, sae.decode(torch.from_numpy(features)).numpy(), rtol=1e-5, atol=1e-6)
    for wrong, sentence in (
        ({"without": "attribute:Male"}, "names what features mean, which a registered model does not know; give their"),
        ({"without": str(sae.d_sae)}, f"without must be numbers from 0 to {sae.d_sae - 1} .*d_sae is {sae.d_sae}"),
    ):
        with pytest.raises(UserError, match=sentence):
            model.predict(templates, params=wrong)


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {
        name.split(".")[0]
        for node in nodes
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
