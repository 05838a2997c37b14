"""The inputs of a run: template sets, SAEs and readings, named by a folder, a run, a model or `latest`."""

import logging
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.artifacts import download_artifacts
from mlflow.data.meta_dataset import MetaDataset
from mlflow.data.sources import LocalArtifactDatasetSource  # pyright: ignore[reportAttributeAccessIssue]
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import get_model_name_and_version

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.table import (
    FEATURES,
    TOP_FACES,
    Description,
    read_description,
    read_readings,
    readings_digest,
)
from fsae_mlflow.report.browser.images import images_digest
from fsae_mlflow.sae.saved import WEIGHTS, digest
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.tracking.runs import STAGE_TAG, Run

TEMPLATES = "templates"
SAE = "sae"
READINGS = "readings"
IMAGES = "visualization"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What a name of an input means: where it came from, and the folder that it is in now."""

    folder: Path
    origin: str


def open_templates(run: Run, name: str, *, context: str, parameter: str = "templates") -> TemplateSet:
    """Open the template set that `name` means (a folder, a run id, or `latest`), and log it as the run's input dataset.

    What the name meant stands in the run's tags `fsae.PARAMETER` and `fsae.PARAMETER.digest`.

    Raises: UserError where there is no such finished set; it says how to make one.
    """
    found = _find(run, name, parameter=parameter, stages=("extract",), artifact=TEMPLATES)
    templates = TemplateSet.open(found.folder)
    _note_origin(run, parameter, found.origin, templates.digest)
    note_templates(run, templates, context=context)
    return templates


def open_optional(run: Run, name: str, *, context: str, parameter: str) -> TemplateSet | None:
    """The template set that `name` means, as `open_templates` finds it; None where no name is given."""
    return open_templates(run, name, context=context, parameter=parameter) if name else None


def note_templates(run: Run, templates: TemplateSet, *, context: str) -> None:
    """Log a template set, with its digest and source, in the run's list of datasets; `context` says what it is for."""
    name = templates.metadata.get("source", {}).get("name", templates.folder.name)
    _note_dataset(run, name, templates.folder, templates.digest, context)


def find_sae(run: Run, name: str, *, parameter: str = SAE) -> Path:
    """The folder of the SAE that `name` means: a folder, a run id, `models:/NAME/VERSION` or `@ALIAS`, or `latest`.

    The SAE is logged as the run's input; what the name meant stands in the tags `fsae.PARAMETER` and
    `fsae.PARAMETER.digest`.

    Raises: UserError where there is no such SAE; it says how to make one.
    """
    if name.startswith("models:/"):
        found = _find_model(run, name)
    else:
        found = _find(run, name, parameter=parameter, stages=("train_sae", "sweep"), artifact=SAE)
    if (found.folder / WEIGHTS).is_file():
        weights = digest(found.folder)
        _note_origin(run, parameter, found.origin, weights)
        _note_dataset(run, SAE, found.folder, weights, SAE)
    return found.folder


def find_readings(run: Run, name: str) -> Path:
    """The folder of the readings that `name` means: a folder, a run id of describe, or `latest`.

    They are logged as the run's input; what the name meant stands in the tags `fsae.readings` and
    `fsae.readings.digest`.

    Raises: UserError where there are no such readings; it says how to make them.
    """
    found = _find(run, name, parameter=READINGS, stages=("describe",), artifact=READINGS)
    if missing := [file for file in (FEATURES, TOP_FACES) if not (found.folder / file).is_file()]:
        raise UserError(
            f"readings: {found.folder} has no {' and no '.join(missing)}; give a folder that describe wrote."
        )
    content = readings_digest(found.folder)
    _note_origin(run, READINGS, found.origin, content)
    _note_dataset(run, READINGS, found.folder, content, READINGS)
    return found.folder


def find_images(run: Run, name: str) -> Path:
    """The folder of the images that `name` means: a folder, a run id of visualize, or `latest`.

    What the name meant stands in the tags `fsae.images` and `fsae.images.digest`.

    Raises: UserError where there are no such images; it says how to make them.
    """
    try:
        found = _find(run, name, parameter="images", stages=("visualize",), artifact=IMAGES)
    except UserError as error:
        raise UserError(f"{error} Or give images=none, for a page without optimized images.") from error
    _note_origin(run, "images", found.origin, images_digest(found.folder))
    return found.folder


def open_readings(
    run: Run, name: str, *, sae: Path, d_sae: int, templates: TemplateSet, shown: str
) -> tuple[Description | None, TemplateSet | None, str]:
    """The readings of the SAE in the folder `sae` that `name` means, the template set whose faces show them, and the
    readings' digest; for "none" nothing.

    The faces are those of the set that `shown` means; where it is empty, of `templates`, if the readings are of it.

    Raises: UserError as `find_readings`, and for readings of another SAE or set.
    """
    if name == "none":
        return None, None, ""
    folder = find_readings(run, name)
    if shown:
        faces = open_templates(run, shown, context=READINGS, parameter="reading_templates")
    elif read_description(folder).about["templates"] == templates.digest:
        faces = templates
    else:
        faces = None
        logger.info("reading_templates: the readings are of another template set; name it to see its faces too.")
    return read_readings(folder, sae=digest(sae), d_sae=d_sae, templates=faces), faces, readings_digest(folder)


def _note_origin(run: Run, parameter: str, origin: str, digest_of_it: str) -> None:
    run.set_tags({f"fsae.{parameter}": origin, f"fsae.{parameter}.digest": digest_of_it})


def _note_dataset(run: Run, name: str, folder: Path, digest_of_it: str, context: str) -> None:
    source = LocalArtifactDatasetSource(str(folder.resolve()))
    dataset = MetaDataset(source=source, name=name, digest=digest_of_it)
    run.log("dataset", dataset=dict(dataset._to_mlflow_entity()), context=context)


def _find_model(run: Run, name: str) -> Found:
    try:
        # An alias may move between two requests: the version that it means now is the one that is read.
        model, *version = map(str, get_model_name_and_version(run.client, name))
        uri = "/".join(["models:", model, *version])
        folder = Path(download_artifacts(artifact_uri=uri)) / "artifacts" / SAE
        source = run.client.get_model_version(model, version[0]).run_id if version else ""
    except MlflowException as error:
        raise UserError(f"sae: {name} is not in the model registry ({error.message})") from error
    return Found(folder, f"{uri} of run {source}" if source else uri)


def _find(run: Run, name: str, *, parameter: str, stages: tuple[str, ...], artifact: str) -> Found:
    if name != "latest" and Path(name).exists():
        return Found(Path(name), str(Path(name).resolve()))
    make = f"make one with `mlflow run . -e {stages[0]}`"
    if name == "latest":
        found = _newest_finished(run, stages)
        if found is None:
            experiment = run.client.get_experiment(run.experiment_id).name
            raise UserError(
                f"{parameter}=latest: experiment {experiment} has no finished {stages[0]} run; {make}, or give a "
                "folder or a run id."
            )
    else:
        try:
            found = run.client.get_run(name)
        except MlflowException as error:
            raise UserError(
                f"{parameter}: {name} is neither a folder nor a run of this tracking store; give `latest`, or {make}."
            ) from error
    try:
        # From a local store this is the artifact itself, from a remote one a downloaded copy.
        folder = Path(download_artifacts(artifact_uri=f"{found.info.artifact_uri}/{artifact}"))
    except (MlflowException, OSError) as error:
        raise UserError(
            f"{parameter}: run {found.info.run_id} has no artifact {artifact}; give a run of {' or '.join(stages)}."
        ) from error
    return Found(folder, f"runs:/{found.info.run_id}/{artifact}")


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
