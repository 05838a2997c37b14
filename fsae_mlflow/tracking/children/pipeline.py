"""A pipeline: stages as child runs of one run; those that would give the same result again are reused."""

import logging
from collections.abc import Mapping
from typing import Any

import click

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import parse
from fsae_mlflow.pipeline.fingerprint import UnknownContentError, stage_fingerprint
from fsae_mlflow.pipeline.settings import PipelineSettings
from fsae_mlflow.pipeline.stages import STAGES, Stage
from fsae_mlflow.tracking.children.projects import require_project, run_entry_point
from fsae_mlflow.tracking.children.reuse import find_reusable, mark_reusable
from fsae_mlflow.tracking.data.outputs import DIGEST_TAG
from fsae_mlflow.tracking.description import Input
from fsae_mlflow.tracking.groups import MAIN
from fsae_mlflow.tracking.runs.answers import patiently
from fsae_mlflow.tracking.runs.run import Run

BROWSER = "features.html"
# What the closing line tells, where it was measured.
TOLD = {"heldout/fvu": "held-out fvu", "lfw/original/accuracy": "accuracy", "lfw/all/accuracy": "decoded"}

logger = logging.getLogger(__name__)


def run_pipeline(run: Run, settings: PipelineSettings) -> dict[str, Run]:
    """Run or reuse every stage that is not skipped, gather their main metrics and pictures in `run`, and give the runs
    of the stages that are done.

    A stage whose input was not made, or an optional stage that fails, is left out with a warning. The tags
    `fsae.stage.STAGE.run` have the ids of the stages' runs. The run's inputs are the template set and the SAE's logged
    model.

    Raises: UserError where another stage fails, and where the working directory is not the project's root.
    """
    require_project(run)
    done: dict[str, Run] = {}
    left_out: list[str] = []
    for name, stage in STAGES.items():
        if name in settings.skipped:
            continue
        values = settings.given(name)
        if lacking := _lacking(stage, values, done):
            logger.warning("%s: left out, because it needs %s.", name, lacking)
            left_out.append(name)
            continue
        values = settings.given(name, _inputs(stage, values, done))
        try:
            done[name] = _run_or_reuse(run, name, values, made=_digests(done), cache=settings.cache)
        except UserError as error:
            if not stage.optional:
                raise
            logger.warning("%s", error)
            left_out.append(name)
            continue
        _note_stage(run, name, done[name])
        run.copy_from(done[name], metrics=MAIN, artifacts=stage.artifacts)
    reused = sum(one.tags.get("mlflow.parentRunId") != run.id for one in done.values())
    metrics = run.metrics
    told = [f"{len(done)} stages" + (f", {reused} of them reused" if reused else "")]
    told += [f"{' and '.join(left_out)} left out"] if left_out else []
    told += [f"{word} {metrics[name]:.4f}" for name, word in TOLD.items() if name in metrics]
    run.conclude(
        ", ".join(told),
        folder=run.journal.folder.parent,
        picture="features.png" if "visualize" in done else "accepted.png",
    )
    if "browse" in done and (place := done["browse"].local_artifacts):
        click.echo(f"browser: {place / BROWSER} shows every feature; it opens from disk.")
    return done


def _lacking(stage: Stage, values: Mapping[str, Any], done: Mapping[str, Run]) -> str:
    return next(
        (
            one.stage
            for parameter, one in stage.inputs.items()
            if one.otherwise is None and one.stage not in done and parameter not in values
        ),
        "",
    )


def _inputs(stage: Stage, values: Mapping[str, Any], done: Mapping[str, Run]) -> dict[str, str]:
    inputs = {
        parameter: done[one.stage].id if one.stage in done else one.otherwise or ""
        for parameter, one in stage.inputs.items()
        if one.unless not in values
    }
    return {parameter: value for parameter, value in inputs.items() if value}


def _digests(done: Mapping[str, Run]) -> dict[str, str]:
    """What the runs of the stages made, as digests by run id."""
    tags = {one.id: one.tags for one in done.values()}
    return {run_id: found[DIGEST_TAG] for run_id, found in tags.items() if DIGEST_TAG in found}


def _run_or_reuse(run: Run, name: str, values: Mapping[str, Any], *, made: Mapping[str, str], cache: bool) -> Run:
    settings = parse(STAGES[name].settings, values)
    try:
        content = stage_fingerprint(name, settings, made)
    except UnknownContentError as error:
        logger.info("%s: runs, because what %s names may have changed.", name, error)
        return run_entry_point(run, name, values)
    if cache and (former := find_reusable(run, name, settings, content)):
        logger.info("%s: reused run %s (same inputs, settings and code)", name, former.id)
        return former
    child = run_entry_point(run, name, values)
    if stage_fingerprint(name, settings, made) == content:
        mark_reusable(child, content)
    else:
        logger.warning("%s: files or code changed while it ran, so this run will not be reused.", name)
    return child


def _note_stage(run: Run, name: str, child: Run) -> None:
    found = patiently(lambda: child.client.get_run(child.id))
    run.note_input(f"stage.{name}", Input.of_run(found.info, found.data.tags.get(DIGEST_TAG, "")))
