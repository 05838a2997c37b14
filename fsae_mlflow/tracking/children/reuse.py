"""Finished runs that stand for a stage which would give the same result again."""

from typing import Any

import mlflow
from mlflow.artifacts import load_dict
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from fsae_mlflow.tracking.models.logged import DIGEST_TAG, EMBEDDED_TAG, model_of, versions_of
from fsae_mlflow.tracking.runs.answers import patiently
from fsae_mlflow.tracking.runs.lifecycle import STAGE_TAG, Run

FINGERPRINT_TAG = "fsae.fingerprint"
LISTING = "artifacts.json"


def mark_reusable(run: Run, content: str) -> None:
    """Note on a finished run which artifacts it has, and its stage's fingerprint."""
    patiently(lambda: run.client.log_dict(run.id, _artifacts(run, run.id), LISTING))
    patiently(lambda: run.client.set_tag(run.id, FINGERPRINT_TAG, content))


def find_reusable(parent: Run, stage: str, settings: Any, content: str) -> Run | None:
    """The newest finished run of the experiment with this fingerprint that still has every artifact, and whose model,
    where the stage registers one, is still in the registry.
    """
    found = patiently(
        lambda: mlflow.search_runs(
            [parent.experiment_id],
            filter_string=f"tags.`{STAGE_TAG}` = '{stage}' and tags.`{FINGERPRINT_TAG}` = '{content}' "
            "and attributes.status = 'FINISHED'",
            order_by=["attributes.end_time DESC"],
            output_format="list",
        )
    )
    return next((Run(one, stage) for one in found if _is_whole(parent, one, settings)), None)


def _is_whole(parent: Run, run: MlflowRun, settings: Any) -> bool:
    try:
        # Later stages may have put further files beside the run's own, such as the eigenfaces of a template set.
        if not load_dict(f"{run.info.artifact_uri}/{LISTING}").items() <= _artifacts(parent, run.info.run_id).items():
            return False
        if not getattr(settings, "register", False):
            return True
        weights = run.data.tags.get(DIGEST_TAG, "")
        versions = [one for one in versions_of(parent.client, weights) if one.name == settings.model_name]
        if settings.embed_recognizer:
            models = [parent.client.get_logged_model(model_of(one)) for one in versions if model_of(one)]
            return any(EMBEDDED_TAG in model.tags for model in models)
        return bool(versions)
    except (MlflowException, OSError):
        return False


def _artifacts(run: Run, run_id: str, folder: str = "") -> dict[str, int | None]:
    """The sizes of a run's artifacts in bytes, by path."""
    sizes: dict[str, int | None] = {}
    for one in run.client.list_artifacts(run_id, folder):
        sizes |= _artifacts(run, run_id, one.path) if one.is_dir else {one.path: one.file_size}
    return sizes
