"""The inputs of a run: template sets, SAEs and readings, named by a folder, a run, a model or `latest`."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode
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
from fsae_mlflow.sae.saved import WEIGHTS, digest, read_config
from fsae_mlflow.sae.training.settings import sae_title
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.tracking.data.datasets import (
    folder_source,
    pictures_entry,
    readings_entry,
    sae_entry,
    templates_entry,
)
from fsae_mlflow.tracking.data.downloads import downloaded
from fsae_mlflow.tracking.description import Input
from fsae_mlflow.tracking.models.logged import SAE, exists, find_model, model_of
from fsae_mlflow.tracking.runs.lifecycle import STAGE_TAG
from fsae_mlflow.tracking.runs.run import Run

TEMPLATES = "templates"
READINGS = "readings"
IMAGES = "visualization"
MOST_NAMED = 10
NOT_THERE = [ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What a name of an input means: where it came from, the folder that it is in now, its address, the name that
    means the same later, and the run that made it and its LoggedModel's id, if they are known.
    """

    folder: Path
    origin: str
    source: str
    again: str
    run: MlflowRun | None = None
    model_id: str = ""


def open_templates(run: Run, name: str, *, context: str, parameter: str = "templates") -> TemplateSet:
    """Open the template set that `name` means (a folder, a run id, or `latest`), and log it as the run's input dataset.

    What the name meant stands in the run's tags `fsae.PARAMETER` and `fsae.PARAMETER.digest`.

    Raises: UserError where there is no such finished set; it says how to make one.
    """
    found = _find(run, name, parameter=parameter, stages=("extract",), artifact=TEMPLATES)
    templates = TemplateSet.open(found.folder)
    _note(run, parameter, found, templates.digest)
    run.set_tags({"fsae.recognizer.digest": templates.origin.digest} if templates.origin.digest else {})
    entry = templates_entry(templates, source=found.source)
    run.log("dataset", dataset=entry, context=context)
    if parameter == TEMPLATES:
        run.dataset = (entry["name"], entry["digest"])
    return templates


def open_optional(run: Run, name: str, *, context: str, parameter: str) -> TemplateSet | None:
    """The template set that `name` means, as `open_templates` finds it; None where no name is given."""
    return open_templates(run, name, context=context, parameter=parameter) if name else None


def share_templates(run: Run, child: Run, templates: TemplateSet, *, context: str) -> None:
    """Log the template set that a run has opened as the input of a run nested in it."""
    known = run.inputs[TEMPLATES]
    child.note_input(TEMPLATES, known)
    source = known.origin if known.run_id else folder_source(Path(known.origin))
    child.log("dataset", dataset=templates_entry(templates, source=source), context=context)


def note_extracted(run: Run, templates: TemplateSet, faces: str) -> None:
    """Log the template set that a run has made, its artifact, and the pictures (from `faces`) that it is made of."""
    run.set_tags({"fsae.templates.digest": templates.digest, "fsae.recognizer.digest": templates.origin.digest})
    if "digest" in templates.metadata["source"]:  # sets of version 0.1 have none
        run.log("dataset", dataset=pictures_entry(templates, faces), context="pictures")
    own = templates_entry(templates, source=f"runs:/{run.id}/{TEMPLATES}")
    run.log("dataset", dataset=own, context="extracted")


def find_sae(run: Run, name: str, *, parameter: str = SAE) -> Path:
    """The folder of the SAE that `name` means: a folder, a run id, `models:/NAME/VERSION` or `@ALIAS`, or `latest`.

    The SAE and its LoggedModel, if it has one, are logged as the run's inputs; what the name meant stands in the tags
    `fsae.PARAMETER` and `fsae.PARAMETER.digest`.

    Raises: UserError where there is no such SAE; it says how to make one.
    """
    if name.startswith("models:/"):
        found = _find_model(run, name)
    else:
        found = _find(run, name, parameter=parameter, stages=("train_sae", "sweep"), artifact=SAE)
    if (found.folder / WEIGHTS).is_file():
        weights, config = digest(found.folder), read_config(found.folder)
        _note(run, parameter, found, weights)
        entry = sae_entry(weights, config, source=found.source)
        run.log("dataset", dataset=entry, context=SAE)
        model_id = found.model_id
        if not model_id or not exists(run.client, model_id):
            model_id = find_model(run.client, weights, run.experiment_id)
        if model_id:
            run.log("used_model", model=model_id)
        if parameter == SAE:
            run.model_id = model_id
            run.add_to_name(sae_title(config["settings"]))
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
    _note(run, READINGS, found, content)
    run.log("dataset", dataset=readings_entry(content, found.folder, source=found.source), context=READINGS)
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
    _note(run, "images", found, images_digest(found.folder))
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


def _note(run: Run, parameter: str, found: Found, digest_of_it: str) -> None:
    made_by = {}
    if found.run:
        info = found.run.info
        made_by = {"run_id": info.run_id, "run_name": info.run_name, "experiment_id": info.experiment_id}
    run.note_input(parameter, Input(origin=found.origin, digest=digest_of_it, again=found.again, **made_by))


def _find_model(run: Run, name: str) -> Found:
    try:
        # An alias may move between two requests: the version that it means now is the one that is read.
        model, *version = map(str, get_model_name_and_version(run.client, name))
        uri = "/".join(["models:", model, *version])
        registered = run.client.get_model_version(model, version[0]) if version else None
        # A name and a number mean another model where one was deleted and made again; this address does not.
        place = (
            run.client.get_model_version_download_uri(model, version[0])
            if version
            else run.client.get_logged_model(model).artifact_location
        )
        folder = downloaded(f"{place}/artifacts/{SAE}")
    except MlflowException as error:
        raise UserError(
            f"sae: {name} is not in the model registry ({error.message}){_known(run, name, error)}"
        ) from error
    made_by, source = None, registered.run_id if registered else ""
    model_id = model_of(registered) if registered else model
    with suppress(MlflowException):  # it may be deleted, or on another server
        made_by = run.client.get_run(source) if source else None
    return Found(folder, f"{uri} of run {source}" if source else uri, uri, uri, made_by, model_id)


def _known(run: Run, address: str, error: MlflowException) -> str:
    """The versions and aliases of the model that an address names, where it has others; empty where it has none."""
    if error.error_code not in NOT_THERE:
        return ""
    name, _, version = address.removeprefix("models:/").partition("/")
    name = name.partition("@")[0]
    with suppress(MlflowException):
        aliases = run.client.get_registered_model(name).aliases
        found = sorted(int(one.version) for one in run.client.search_model_versions(f"name = '{name}'"))
        if found and version not in map(str, found):
            newest = ", ".join(["…"] * (len(found) > MOST_NAMED) + [str(one) for one in found[-MOST_NAMED:]])
            return f"; {name} has the versions {newest}" + (f" and the aliases {', '.join(aliases)}" if aliases else "")
    return ""


def _find(run: Run, name: str, *, parameter: str, stages: tuple[str, ...], artifact: str) -> Found:
    if name != "latest" and Path(name).exists():
        folder = Path(name).resolve()
        return Found(Path(name), str(folder), folder_source(folder), str(folder))
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
        folder = downloaded(f"{found.info.artifact_uri}/{artifact}")
    except (MlflowException, OSError) as error:
        raise UserError(
            f"{parameter}: run {found.info.run_id} has no artifact {artifact}; give a run of {' or '.join(stages)}, "
            "or a trial on the front of a sweep."
        ) from error
    address = f"runs:/{found.info.run_id}/{artifact}"
    models = [one.model_id for one in found.outputs.model_outputs] if found.outputs else []
    return Found(folder, address, address, found.info.run_id, found, models[-1] if models else "")


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
