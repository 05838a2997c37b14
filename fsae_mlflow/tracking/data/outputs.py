"""What a run made for other stages: its artifacts, and their digest in the tag `fsae.digest`."""

from collections.abc import Iterable
from pathlib import Path

from fsae_mlflow.features.table import readings_digest
from fsae_mlflow.report.browser.images import images_digest
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.tracking.data.inputs import IMAGES, READINGS, TEMPLATES, note_extracted
from fsae_mlflow.tracking.models.logged import DIGEST_TAG
from fsae_mlflow.tracking.runs.lifecycle import Run


def log_templates(run: Run, templates: TemplateSet, *, faces: str) -> None:
    """Log a template set as artifacts of the run, where `templates=RUN` finds it, and as a dataset beside the pictures
    that it is made of, found at `faces`.
    """
    run.log_path(templates.folder, TEMPLATES)
    run.set_tags({DIGEST_TAG: templates.digest})
    note_extracted(run, templates, faces)


def log_readings(run: Run, files: Iterable[Path], folder: Path) -> None:
    """Log the files that describe wrote to `folder` as artifacts of the run, where `readings=RUN` finds them."""
    for path in files:
        run.log_path(path, READINGS)
    run.set_tags({DIGEST_TAG: readings_digest(folder)})


def log_images(run: Run, paths: Iterable[Path], folder: Path) -> None:
    """Log the files and folders that visualize wrote to `folder` as artifacts, where `images=RUN` finds them."""
    for path in paths:
        place = path.relative_to(folder).as_posix() if path.is_dir() else ""
        run.log_path(path, f"{IMAGES}/{place}" if place else IMAGES)
    run.set_tags({DIGEST_TAG: images_digest(folder)})
