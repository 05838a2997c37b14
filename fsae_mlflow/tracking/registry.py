"""SAEs in the MLflow model registry."""

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

import fsae_mlflow
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.saved import FILES
from fsae_mlflow.tracking import served_model
from fsae_mlflow.tracking.inputs import SAE
from fsae_mlflow.tracking.runs import Run

# The packages that the served model and its code import; a test checks that none is missing.
REQUIREMENTS = ("mlflow", "torch", "numpy", "safetensors", "jaxtyping", "pydantic", "annotated-types")
VERSION_TAG = "fsae_mlflow"


def log_sae(run: Run, folder: Path) -> None:
    """Log the SAE saved in `folder` as artifacts of the run, where `sae=RUN` and `sae=latest` find it."""
    for name in FILES:
        run.log_path(folder / name, SAE)


def register_sae(run: Run, sae: SparseAutoencoder, folder: Path, *, name: str, aliases: tuple[str, ...] = ()) -> str:
    """Log the SAE saved in `folder` as a pyfunc model of the run, register it as `name`, and return the model version.

    The model's input is templates (n, d_in) in the recognizer's units; its parameter `output` selects `features`
    (n, d_sae) or `reconstruction` (n, d_in). The model's metadata and the registered version's tags have the version of
    this package as `fsae_mlflow`. Without a `name` the model is logged and not registered, and the result is "".
    """
    if not run.leads:
        return ""
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, sae.d_in))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1))]),
        params=ParamSchema([ParamSpec("output", "string", "features")]),
    )
    with tempfile.TemporaryDirectory() as temporary:
        code, files = Path(temporary) / "fsae_mlflow", Path(temporary) / SAE
        shutil.copytree(
            Path(fsae_mlflow.__file__).parent, code, ignore=shutil.ignore_patterns("__pycache__", "weights")
        )
        files.mkdir()
        for name_of_file in FILES:
            shutil.copy(folder / name_of_file, files)
        info = mlflow.pyfunc.log_model(
            name=SAE,
            python_model=served_model.__file__,
            artifacts={SAE: str(files)},
            code_paths=[str(code)],
            signature=signature,
            input_example=np.zeros((2, sae.d_in), dtype=np.float32),
            pip_requirements=[f"{package}=={version(package).split('+')[0]}" for package in REQUIREMENTS],
            registered_model_name=name or None,
            metadata={VERSION_TAG: fsae_mlflow.__version__},
        )
    if not name:
        return ""
    number = str(info.registered_model_version)
    run.client.set_model_version_tag(name, number, VERSION_TAG, fsae_mlflow.__version__)
    for alias in aliases:
        run.client.set_registered_model_alias(name, alias, number)
    return number
