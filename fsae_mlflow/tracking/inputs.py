"""The inputs of a run: template sets and SAEs, named by a folder, a run, a model or `latest`."""

from pathlib import Path

import mlflow
from mlflow.artifacts import download_artifacts
from mlflow.data.meta_dataset import MetaDataset
from mlflow.data.sources import LocalArtifactDatasetSource  # pyright: ignore[reportAttributeAccessIssue]
from mlflow.entities import DatasetInput, InputTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.tracking.runs import STAGE_TAG, Run

TEMPLATES = "templates"
SAE = "sae"


def open_templates(run: Run, name: str, *, context: str, parameter: str = "templates") -> TemplateSet:
    """Open the template set that `name` means (a folder, a run id, or `latest`), and log it as the run's input dataset.

    Raises: ValueError where there is no such finished set; it says how to make one.
    """
    templates = TemplateSet.open(_find(run, name, parameter=parameter, stages=("extract",), artifact=TEMPLATES))
    note_templates(run, templates, context=context)
    return templates


def note_templates(run: Run, templates: TemplateSet, *, context: str) -> None:
    """Log a template set, with its digest and source, in the run's list of datasets; `context` says what it is for."""
    dataset = MetaDataset(
        source=LocalArtifactDatasetSource(str(templates.folder.resolve())),
        name=templates.metadata.get("source", {}).get("name", templates.folder.name),
        digest=templates.digest,
    )
    run.client.log_inputs(
        run.id, [DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])]
    )


def find_sae(run: Run, name: str) -> Path:
    """The folder of the SAE that `name` means: a folder, a run id, `models:/NAME/VERSION` or `@ALIAS`, or `latest`.

    Raises: ValueError where there is no such SAE; it says how to make one.
    """
    if not name.startswith("models:/"):
        return _find(run, name, parameter="sae", stages=("train_sae", "sweep"), artifact=SAE)
    try:
        model = Path(download_artifacts(artifact_uri=name))
    except MlflowException as error:
        raise ValueError(f"sae: {name} is not in the model registry ({error.message})") from error
    return model / "artifacts" / SAE


def _find(run: Run, name: str, *, parameter: str, stages: tuple[str, ...], artifact: str) -> Path:
    if name != "latest" and Path(name).exists():
        return Path(name)
    make = f"make one with `mlflow run . -e {stages[0]}`"
    if name == "latest":
        found = _newest_finished(run, stages)
        if found is None:
            experiment = run.client.get_experiment(run.experiment_id).name
            raise ValueError(
                f"{parameter}=latest: experiment {experiment} has no finished {stages[0]} run; {make}, or give a "
                "folder or a run id."
            )
    else:
        try:
            found = run.client.get_run(name)
        except MlflowException as error:
            raise ValueError(
                f"{parameter}: {name} is neither a folder nor a run of this tracking store; give `latest`, or {make}."
            ) from error
    try:
        # From a local store this is the artifact itself, from a remote one a downloaded copy.
        return Path(download_artifacts(artifact_uri=f"{found.info.artifact_uri}/{artifact}"))
    except (MlflowException, OSError) as error:
        raise ValueError(
            f"{parameter}: run {found.info.run_id} has no artifact {artifact}; give a run of {' or '.join(stages)}."
        ) from error


def _newest_finished(run: Run, stages: tuple[str, ...]) -> MlflowRun | None:
    found = [
        one
        for stage in stages
        for one in mlflow.search_runs(
            [run.experiment_id],
            filter_string=f"tags.`{STAGE_TAG}` = '{stage}' and attributes.status = 'FINISHED'",
            order_by=["attributes.end_time DESC"],
            max_results=1,
            output_format="list",
        )
    ]
    return max(found, key=lambda one: one.info.end_time or 0, default=None)
