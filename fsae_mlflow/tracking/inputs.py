"""What a run builds on: template sets and SAEs, named by folder, run, model or `latest`."""

from pathlib import Path

import mlflow
from mlflow.artifacts import download_artifacts
from mlflow.data.meta_dataset import MetaDataset
from mlflow.data.sources import LocalArtifactDatasetSource  # pyright: ignore[reportAttributeAccessIssue]
from mlflow.entities import DatasetInput, InputTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from fsae_mlflow.templates import MARKER, TemplateSet
from fsae_mlflow.tracking.runs import STAGE_TAG, Run

TEMPLATES = "templates"
SAE = "sae"
SAE_FILE = "config.json"


def open_templates(run: Run, name: str, *, context: str) -> TemplateSet:
    """The template set called `name`: a folder, a run id, or `latest`; noted as the run's input dataset.

    Raises: ValueError where there is no such finished set, with the way to make one.
    """
    templates = TemplateSet.open(
        _find(run, name, parameter="templates", stage="extract", folder=TEMPLATES, marker=MARKER)
    )
    note_templates(run, templates, context=context)
    return templates


def note_templates(run: Run, templates: TemplateSet, *, context: str) -> None:
    """Note a template set, by digest and source, in the run's list of datasets."""
    dataset = MetaDataset(
        source=LocalArtifactDatasetSource(str(templates.folder.resolve())),
        name=templates.metadata.get("source", {}).get("name", templates.folder.name),
        digest=templates.digest,
    )
    run.client.log_inputs(
        run.id, [DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])]
    )


def find_sae(run: Run, name: str) -> Path:
    """The folder of the SAE called `name`: a folder, a run id, `models:/NAME/VERSION` (or `@ALIAS`), or `latest`.

    Raises: ValueError where there is no such SAE, with the way to make one.
    """
    return _find(run, name, parameter="sae", stage="train_sae", folder=SAE, marker=SAE_FILE)


def _find(run: Run, name: str, *, parameter: str, stage: str, folder: str, marker: str) -> Path:
    if name == "latest":
        newest = _newest_finished(run, stage)
        if newest is None:
            raise ValueError(
                f"{parameter}=latest: this experiment has no finished {stage} run; "
                f"make one with `mlflow run . -e {stage}`, or name a folder."
            )
        return _artifact(newest.info.artifact_uri, folder)
    if name.startswith("models:/"):
        try:
            downloaded = Path(download_artifacts(artifact_uri=name))
        except MlflowException as error:
            raise ValueError(f"{parameter}: {name} is not in the registry ({error.message})") from error
        return next((path.parent for path in downloaded.rglob(marker)), downloaded)
    if Path(name).exists():
        return Path(name)
    try:
        return _artifact(run.client.get_run(name).info.artifact_uri, folder)
    except MlflowException as error:
        raise ValueError(
            f"{parameter}: {name} is neither a folder nor a run of this tracking store; "
            f"use `latest`, or make one with `mlflow run . -e {stage}`."
        ) from error


def _newest_finished(run: Run, stage: str) -> MlflowRun | None:
    found = mlflow.search_runs(
        [run.experiment_id],
        filter_string=f"tags.`{STAGE_TAG}` = '{stage}' and attributes.status = 'FINISHED'",
        order_by=["attributes.end_time DESC"],
        max_results=1,
        output_format="list",
    )
    return found[0] if found else None


def _artifact(artifact_uri: str | None, folder: str) -> Path:
    # A local store answers with the artifact itself, a remote one with a downloaded copy.
    return Path(download_artifacts(artifact_uri=f"{artifact_uri}/{folder}"))
