"""Turn pictures of faces into a template set."""

from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.tracking.command import command


@command(ExtractSettings, stage="extract")
def main(settings, run):
    """Find, align and embed every face of a source, and log the templates as Parquet."""
    from fsae_mlflow.extraction.stage import extract
    from fsae_mlflow.machine.memory import keep_freed_memory
    from fsae_mlflow.tracking.data.outputs import log_templates

    keep_freed_memory()
    extraction = extract(settings, on_metrics=run.under("faces"))
    log_templates(run, extraction.templates, faces=settings.faces)
    run.log_json(extraction.templates.metadata["recognizer"], "recognizer.json")
    for sheet in (extraction.accepted, extraction.rejected):
        if sheet is not None:
            run.log_path(sheet)
    run.conclude(extraction.headline, folder=extraction.templates.folder.parent, picture="accepted.png")


if __name__ == "__main__":
    main()
