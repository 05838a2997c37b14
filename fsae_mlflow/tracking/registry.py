"""SAEs in the MLflow model registry."""

import logging
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

import fsae_mlflow
from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.saved import FILES, digest
from fsae_mlflow.tracking import served_model
from fsae_mlflow.tracking.addresses import without_password
from fsae_mlflow.tracking.inputs import SAE
from fsae_mlflow.tracking.journal import PATIENCE_SECONDS, is_refusal, said
from fsae_mlflow.tracking.outputs import DIGEST_TAG
from fsae_mlflow.tracking.runs import Run

# The packages that the served model and its code import; a test checks that none is missing.
REQUIREMENTS = ("mlflow", "torch", "numpy", "safetensors", "jaxtyping", "pydantic", "annotated-types")
VERSION_TAG = "fsae_mlflow"

logger = logging.getLogger(__name__)


def log_sae(run: Run, folder: Path) -> None:
    """Log the SAE saved in `folder` as artifacts of the run, where `sae=RUN` and `sae=latest` find it."""
    for name in FILES:
        run.log_path(folder / name, SAE)
    run.set_tags(dict.fromkeys((f"fsae.{SAE}.digest", DIGEST_TAG), digest(folder)))


def check_registration(run: Run, name: str) -> None:
    """Check before the work that a model can be registered as `name`; without a name there is nothing to check.

    Raises: UserError for a name that MLflow does not accept, and where the model registry does not answer.
    """
    if not name or not run.leads:
        return
    if any(character in name for character in "/:") or not name.strip(" ."):
        raise UserError(f"model_name must be a name without / and :, for the model registry; it is {name!r}.")
    try:
        run.client.search_registered_models(f"name = '{name}'" if "'" not in name else None, max_results=1)
    except (MlflowException, OSError) as error:
        raise UserError(
            f"model_name: the model registry {without_password(mlflow.get_registry_uri())} cannot be used "
            f"({said(error)}); mend that, or give register=false."
        ) from error


def register_sae(run: Run, sae: SparseAutoencoder, folder: Path, *, name: str, aliases: tuple[str, ...] = ()) -> str:
    """Log the SAE saved in `folder` as a pyfunc model of the run, register it as `name`, and return the model version.

    The model's input is templates (n, d_in) in the recognizer's units; its parameter `output` selects `features`
    (n, d_sae) or `reconstruction` (n, d_in), and `without`, feature numbers by commas, sets features to 0. The model's
    metadata and the registered version's tags have the version of this package as `fsae_mlflow`; the tag `fsae.digest`
    has the weights' digest, and a version of the same weights is used again. Without a `name` the model is logged and
    not registered, and the result is "". It is also "" where the server does not answer: the journal has the
    registration then, for `entrypoints.upload`.

    Raises: UserError where the registry refuses; the SAE stays in `folder`.
    """
    if not run.leads:
        return ""
    try:
        if run.journal.flush(PATIENCE_SECONDS) or not run.journal.away:
            return register(run.client, run.id, sae, folder, name=name, aliases=aliases)
        trouble = run.journal.trouble
    except (MlflowException, OSError) as error:
        if is_refusal(error):
            raise UserError(
                f"model_name: {name or SAE} cannot be registered ({said(error)}). The trained SAE is kept in {folder}; "
                "the same command only registers it."
            ) from error
        trouble = said(error)
    run.log(
        "register",
        folder=str(folder.resolve()),
        digest=digest(folder),
        name=name,
        aliases=aliases,
        trouble=trouble,
    )
    return ""


def register(
    client: MlflowClient, run_id: str, sae: SparseAutoencoder, folder: Path, *, name: str, aliases: Sequence[str]
) -> str:
    """Register as `register_sae` does, for MLflow's active run, unless that run's model or one of the same weights is
    registered already.
    """
    if not name:
        return _log_model(sae, folder, name)
    weights = digest(folder)
    number = _registered(client, name, f"tags.`{DIGEST_TAG}` = '{weights}'")
    if number:
        logger.info("model_name: %s version %s has these weights already; no other version is made.", name, number)
    else:
        number = _registered(client, name, f"run_id = '{run_id}'") or _log_model(sae, folder, name)
        for tag, value in ((VERSION_TAG, fsae_mlflow.__version__), (DIGEST_TAG, weights)):
            client.set_model_version_tag(name, number, tag, value)
    for alias in aliases:
        client.set_registered_model_alias(name, alias, number)
    return number


def _registered(client: MlflowClient, name: str, condition: str) -> str:
    """The newest complete version of the model `name` that meets the condition; empty if there is none."""
    known = [one for one in client.search_model_versions(condition) if one.name == name and one.status == "READY"]
    return str(max((int(one.version) for one in known), default=""))


def _log_model(sae: SparseAutoencoder, folder: Path, name: str) -> str:
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, sae.d_in))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1))]),
        params=ParamSchema([ParamSpec("output", "string", "features"), ParamSpec("without", "string", "")]),
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
    return str(info.registered_model_version or "")
