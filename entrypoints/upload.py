"""Log what stages could not log while the tracking server was away."""

from typing import Annotated

import click

from fsae_mlflow.parameters import settings
from fsae_mlflow.tracking.command import command


@settings
class UploadSettings:
    """What to upload."""

    folder: Annotated[str, "Output folder of a stage, or a folder of such folders."]
    force: Annotated[bool, "The processes that wrote there have ended for certain."] = False


@command(UploadSettings, stage="upload", tracked=False)
def main(settings, _run):
    """Send the metrics, artifacts and models that wait in a stage's output folder, and end its runs."""
    from pathlib import Path

    from fsae_mlflow.tracking.upload import upload

    for run_id in upload(Path(settings.folder), force=settings.force):
        click.echo(f"Run {run_id} is complete.")


if __name__ == "__main__":
    main()
