"""The LoggedModel of an SAE: how it is logged and found, and its metrics."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import LoggedModelOutput, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, update_model_requirements
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import MlflowClient
from mlflow.types import ParamSchema, ParamSpec
from mlflow.utils.time import get_current_time_millis

import fsae_mlflow
from fsae_mlflow.provenance import Origin
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.saved import FILES, digest, read_config
from fsae_mlflow.sae.training.settings import sae_title
from fsae_mlflow.templates.marker import source_name
from fsae_mlflow.tracking.models.served_inputs import RECOGNIZER

SAE = "sae"
# The packages that the served model and its code import; a test checks that none is missing.
REQUIREMENTS = ("mlflow", "torch", "numpy", "pandas", "safetensors", "jaxtyping", "pydantic", "annotated-types")
# What it also imports where it carries a recognizer.
PICTURE_REQUIREMENTS = (
    "facenet-pytorch",
    "filelock",
    "fsspec",
    "loky",
    "numba",
    "onnx",
    "onnx2torch",
    "pillow",
    "psutil",
    "pyarrow",
    "timm",
    "torchvision",
    "tqdm",
)
VERSION_TAG = "fsae_mlflow"
FORMAT_TAG = "fsae.format"
DIGEST_TAG = "fsae.digest"
EMBEDDED_TAG = "fsae.embedded_recognizer"
"""The digest of the recognizer that a model carries."""
NO_STEP = -1
"""MLflow copies the run's metrics of the model's step to the model, without a dataset: of this step are none."""
FORMAT = "2"
"""Of the served model: 1 (no tag) had the outputs features and reconstruction and took float32 arrays only."""


def about(config: dict[str, Any]) -> dict[str, str]:
    """What is known of an SAE from its config.json, as tags: variant, template set and recognizer."""
    recognizer = Origin.of("", config["templates"].get("recognizer"))
    tags = {
        "fsae.variant": config["variant"],
        "fsae.templates.digest": config["templates"].get("digest", ""),
        "fsae.recognizer": recognizer.recognizer,
        "fsae.recognizer.digest": recognizer.digest,
    }
    return {name: value for name, value in tags.items() if value}


def log_model(sae: SparseAutoencoder, folder: Path) -> str:
    """Log the SAE saved in `folder` as a pyfunc model of MLflow's active run, and give the model's id."""
    config = read_config(folder)
    tags = {VERSION_TAG: fsae_mlflow.__version__, FORMAT_TAG: FORMAT, DIGEST_TAG: digest(folder), **about(config)}
    # Without an input schema MLflow hands all kinds of input to the model, which says itself what it takes.
    params = [ParamSpec("output", "string", "features"), ParamSpec("without", "string", ""), ParamSpec("k", "long", 10)]
    with tempfile.TemporaryDirectory() as temporary:
        code, files = Path(temporary) / "fsae_mlflow", Path(temporary) / SAE
        shutil.copytree(
            Path(fsae_mlflow.__file__).parent, code, ignore=shutil.ignore_patterns("__pycache__", "weights")
        )
        files.mkdir()
        for name_of_file in FILES:
            shutil.copy(folder / name_of_file, files)
        info = mlflow.pyfunc.log_model(
            name=sae_title(config["settings"]).replace(".", "·") or SAE,  # a model's name may have no dot
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={SAE: str(files)},
            code_paths=[str(code)],
            signature=ModelSignature(params=ParamSchema(params)),
            input_example=np.zeros((2, sae.d_in), dtype=np.float32),
            pip_requirements=_pinned(REQUIREMENTS),
            metadata={**tags, "d_in": sae.d_in, "d_sae": sae.d_sae},
            tags=tags,
            step=NO_STEP,
        )
    return str(info.model_id)


def add_recognizer(client: MlflowClient, model_id: str, folder: Path) -> str:
    """Add the recognizer that `EmbeddableRecognizer` wrote to `folder`, and what it requires, to a LoggedModel that has
    none; the digest of the one that the model has now.
    """
    present = client.get_logged_model(model_id).tags.get(EMBEDDED_TAG)
    if present:
        return present
    # It imports all recognizers, which takes seconds.
    from fsae_mlflow.tracking.models.embedded import digest_of

    client.log_model_artifacts(model_id, str(folder), f"artifacts/{RECOGNIZER}")
    update_model_requirements(f"models:/{model_id}", "add", _pinned(PICTURE_REQUIREMENTS))
    client.set_logged_model_tags(model_id, {EMBEDDED_TAG: digest_of(folder)})
    return digest_of(folder)


def _pinned(packages: Sequence[str]) -> list[str]:
    return [f"{package}=={version(package).split('+')[0]}" for package in packages]


def find_model(client: MlflowClient, weights: str, experiment_id: str, *, form: str = "") -> str:
    """The id of the newest LoggedModel of the SAE with this digest, of a registered version or in the experiment; ""
    where there is none. `form`: of this format of the served model only.
    """
    condition = _of_weights(weights, form)
    registered = next((model_of(one) for one in versions_of(client, weights, form=form) if model_of(one)), "")
    if registered:
        return registered
    logged = [one for one in client.search_logged_models([experiment_id], condition) if str(one.status) == "READY"]
    return max(logged, key=lambda one: one.creation_timestamp).model_id if logged else ""


def versions_of(client: MlflowClient, weights: str, *, form: str = "") -> Iterator[ModelVersion]:
    """The complete versions, of all registered models, of the SAE with this digest, the newest first, but for those
    whose LoggedModel was deleted. `form`: of this format of the served model only.
    """
    found = [one for one in client.search_model_versions(_of_weights(weights, form)) if one.status == "READY"]
    for one in sorted(found, key=lambda one: (one.creation_timestamp or 0, int(one.version)), reverse=True):
        if not model_of(one) or exists(client, model_of(one)):
            yield one


def _of_weights(weights: str, form: str) -> str:
    of_format = f" and tags.`{FORMAT_TAG}` = '{form}'" if form else ""
    return f"tags.`{DIGEST_TAG}` = '{weights}'{of_format}"


def exists(client: MlflowClient, model_id: str) -> bool:
    """Whether the LoggedModel is there: runs and versions still name a deleted one."""
    try:
        client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        return False
    return True


def model_of(version: ModelVersion) -> str:
    """The id of a registered version's LoggedModel; "" where it was registered from files."""
    # Stores in a database keep it in the source alone.
    address, _, model_id = version.source.partition(":/") if version.source else ("", "", "")
    return version.model_id or (model_id if address == "models" and "/" not in model_id else "")


def note_output(client: MlflowClient, run_id: str, model_id: str) -> None:
    """Log a LoggedModel as an output of the run, which it may be already; MLflow refuses to log it twice."""
    outputs = client.get_run(run_id).outputs
    if model_id not in [one.model_id for one in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def log_metrics(client: MlflowClient, run_id: str, model_id: str, config: dict[str, Any]) -> None:
    """Log the final metrics of config.json on training and held-out people, which `run_id` has logged, as the model's
    own too, with the template set that they are of; those that the model has stay as they are.
    """
    known = {metric.key for metric in client.get_logged_model(model_id).metrics or []}
    templates = config["templates"]
    dataset = {}
    if "digest" in templates:
        dataset = {"dataset_name": source_name(templates) or "templates", "dataset_digest": templates["digest"]}
    points = []
    for name, value in config.get("metrics", {}).items():
        if name in known or name.split("/")[0] not in ("heldout", "train"):
            continue
        # The very point that the run has: MLflow keeps equal points once.
        logged = [point for point in client.get_metric_history(run_id, name) if point.value == value]
        moment, step = (logged[-1].timestamp, logged[-1].step) if logged else (get_current_time_millis(), 0)
        points.append(Metric(name, value, moment, step, model_id=model_id, **dataset))
    if points:
        client.log_batch(run_id, metrics=points)
