"""SAEs in the MLflow model registry."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow.artifacts import load_dict
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.logging_utils import disable_logging, enable_logging

import fsae_mlflow
from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.saved import CONFIG, FILES, digest, read_config
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.tracking.addresses import without_password
from fsae_mlflow.tracking.models.card import write_cards
from fsae_mlflow.tracking.models.champion import CHALLENGER, CHAMPION, FORMER, SLACK, Standing, Verdict, judge
from fsae_mlflow.tracking.models.logged import (
    DIGEST_TAG,
    FORMAT,
    FORMAT_TAG,
    SAE,
    VERSION_TAG,
    about,
    add_recognizer,
    find_model,
    log_metrics,
    log_model,
    model_of,
    note_output,
    versions_of,
)
from fsae_mlflow.tracking.models.served_inputs import RECOGNIZER
from fsae_mlflow.tracking.runs.answers import PATIENCE_SECONDS, is_refusal, patiently, said
from fsae_mlflow.tracking.runs.lifecycle import Run

if TYPE_CHECKING:
    from fsae_mlflow.tracking.models.embedded import EmbeddableRecognizer

LIMIT_TAG = "fsae.max_l0"
VERDICT_TAG = "fsae.verdict"

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
            f"({said(error)}); correct its address or start it, or give register=false."
        ) from error


def find_embeddable(settings: TrainSettings, templates: TemplateSet) -> "EmbeddableRecognizer | None":
    """The recognizer of the templates where `settings` want the model to carry it, found before the work.

    Raises: UserError where it cannot be carried.
    """
    if not settings.embed_recognizer:
        return None
    # It imports all recognizers, which takes seconds.
    from fsae_mlflow.tracking.models.embedded import EmbeddableRecognizer

    return EmbeddableRecognizer.of(templates)


def register_sae(
    run: Run,
    sae: SparseAutoencoder,
    folder: Path,
    *,
    name: str,
    max_l0: float | None = None,
    recognizer: "EmbeddableRecognizer | None" = None,
) -> str:
    """Log the SAE saved in `folder` as a pyfunc model of the run, register it as `name`, and return the model version.

    What the model takes and gives says models/served.py. The version gets the alias `champion` or `challenger`
    by the rule of models/champion.py, where `max_l0` is the L0 limit of a model without a champion; which one, and why,
    stands in the run's tags `fsae.model`, `fsae.alias` and `fsae.alias_reason`, and is said. Nothing identical is
    logged or registered twice: a LoggedModel or a version of the same weights is used again, and keeps its aliases. The
    final metrics become the LoggedModel's, and the version's card says what it is. A `recognizer` is written beside the
    SAE and added to the LoggedModel, which takes pictures then. Without a `name` the model is logged
    and not registered, and the result is "". It is also "" where the server does not answer: the journal has the
    registration then, for `entrypoints.upload`.

    Raises: UserError where the registry refuses; the SAE stays in `folder`.
    """
    if not run.leads:
        return ""
    carried = recognizer.write(folder / RECOGNIZER) if recognizer else None
    try:
        if run.journal.flush(PATIENCE_SECONDS) or not run.journal.away:
            run.model_id, number = patiently(
                lambda: register(run.client, run.id, sae, folder, name=name, max_l0=max_l0, recognizer=carried)
            )
            return number
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
        max_l0=max_l0,
        recognizer=str(carried.resolve()) if carried else "",
        trouble=trouble,
    )
    return ""


def register(
    client: MlflowClient,
    run_id: str,
    sae: SparseAutoencoder,
    folder: Path,
    *,
    name: str,
    max_l0: float | None,
    recognizer: Path | None = None,
) -> tuple[str, str]:
    """Register as `register_sae` does, for MLflow's active run, with the recognizer written to that folder; the id of
    the LoggedModel, and the version.
    """
    weights, config = digest(folder), read_config(folder)
    # A model of an earlier format would not know what to do with a recognizer.
    form = FORMAT if recognizer else ""
    version = next((one for one in versions_of(client, weights, form=form) if one.name == name), None) if name else None
    if version is not None and model_of(version):
        model_id = model_of(version)
        logger.info("model_name: %s version %s has these weights already; no other version is made.",
                    name, version.version)  # fmt: skip
    else:
        experiment = client.get_run(run_id).info.experiment_id
        model_id = find_model(client, weights, experiment, form=FORMAT) or log_model(sae, folder)
    if recognizer:
        add_recognizer(client, model_id, recognizer)
        logger.info("embed_recognizer: the model carries the recognizer and takes pictures.")
    note_output(client, run_id, model_id)
    log_metrics(client, run_id, model_id, config)
    if not name:
        return model_id, ""
    known = {VERSION_TAG: fsae_mlflow.__version__, DIGEST_TAG: weights, **about(config)}
    if version is None:
        version = _new_version(model_id, name, {FORMAT_TAG: FORMAT, **known})
    number = str(version.version)
    for tag, value in known.items():
        if tag not in version.tags:
            client.set_model_version_tag(name, number, tag, value)
    verdict = _place(client, version, Standing.of(config), max_l0)
    logger.info("model_name: %s version %s is %s.", name, number, verdict)
    client.set_tag(run_id, "fsae.model", f"models:/{name}/{number}")
    client.set_tag(run_id, "fsae.alias", verdict.alias)
    client.set_tag(run_id, "fsae.alias_reason", verdict.reason)
    write_cards(client, model_id)
    return model_id, number


def _new_version(model_id: str, name: str, tags: dict[str, str]) -> ModelVersion:
    """A new version with its tags, by which `versions_of` finds it, from its first moment on."""
    disable_logging()  # MLflow prints a line of its own, at any level
    try:
        return mlflow.register_model(f"models:/{model_id}", name, tags=tags)
    finally:
        enable_logging()


def _place(client: MlflowClient, version: ModelVersion, standing: Standing, max_l0: float | None) -> Verdict:
    """Give a version its alias, unless it has been judged before."""
    name, number = version.name, str(version.version)
    model = client.get_registered_model(name)
    if VERDICT_TAG in version.tags:
        aliases = sorted(alias for alias, one in model.aliases.items() if str(one) == number)
        return Verdict(", ".join(aliases) or "without alias", "it was registered before")
    former = str(model.aliases.get(CHAMPION, ""))
    if former == number:
        verdict = Verdict(CHAMPION, "it has this alias already")
    else:
        champion = _standing(name, former) if former else None
        limit = _limit(model.tags, name)
        if limit is None and champion is not None and champion.counts:
            # Earlier versions of this package noted no limit: that champion's own holds.
            max_l0 = limit = SLACK * champion.l0
        verdict = judge(standing, champion, max_l0=limit)
    if verdict.alias == CHAMPION:
        if str(client.get_registered_model(name).aliases.get(CHAMPION, "")) != former:
            return _place(client, version, standing, max_l0)  # another process has changed the champion meanwhile
        if LIMIT_TAG not in model.tags:
            client.set_registered_model_tag(name, LIMIT_TAG, f"{max_l0 or SLACK * standing.l0:.4g}")
        if former not in ("", number):
            client.set_registered_model_alias(name, FORMER, former)
        if str(model.aliases.get(CHALLENGER)) == number:
            client.delete_registered_model_alias(name, CHALLENGER)
    client.set_registered_model_alias(name, verdict.alias, number)
    client.set_model_version_tag(name, number, VERDICT_TAG, str(verdict))
    return verdict


def _limit(tags: dict[str, str], name: str) -> float | None:
    if LIMIT_TAG not in tags:
        return None
    try:
        return float(tags[LIMIT_TAG])
    except ValueError as error:
        raise UserError(
            f"model_name: the tag {LIMIT_TAG} of {name} must be a number; it is {tags[LIMIT_TAG]!r}."
        ) from error


def _standing(name: str, number: str) -> Standing:
    """The standing of the champion, which may be of an earlier version of this package.

    Raises: UserError where its files are gone.
    """
    try:
        return Standing.of(load_dict(f"models:/{name}/{number}/artifacts/{SAE}/{CONFIG}"))
    except (MlflowException, OSError) as error:
        if not is_refusal(error):
            raise
        raise UserError(
            f"model_name: the champion of {name}, version {number}, cannot be read ({said(error)}); delete that "
            "version or its alias."
        ) from error
