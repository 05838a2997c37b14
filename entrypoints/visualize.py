"""Optimize images that fire features of an SAE."""

from fsae_mlflow.tracking.command import command
from fsae_mlflow.visualization.settings import VisualizeSettings


@command(VisualizeSettings, stage="visualize")
def main(settings, run):
    """Show what features respond to: the faces that fire them most, and images optimized to fire them."""
    from fsae_mlflow.extraction.single import recognizer_of
    from fsae_mlflow.features.table import read_activity, readings_digest
    from fsae_mlflow.locks import only_writer
    from fsae_mlflow.parameters import deciding, fingerprint, output_folder
    from fsae_mlflow.sae.saved import digest, load_sae
    from fsae_mlflow.tracking.inputs import find_readings, find_sae, open_templates
    from fsae_mlflow.visualization.visualize import visualize

    templates = open_templates(run, settings.templates, context="visualization")
    folder = find_sae(run, settings.sae)
    sae = load_sae(folder)
    readings = find_readings(run, settings.readings) if settings.readings else None
    activity = (
        read_activity(readings, sae=digest(folder), d_sae=sae.d_sae, templates=templates, force=settings.force)
        if readings
        else None
    )
    recognizer = recognizer_of(templates, name=settings.recognizer, card=settings.recognizer_card)
    inputs = {
        "templates": templates.digest,
        "sae": digest(folder),
        "recognizer": recognizer.origin.digest,
        "readings": readings_digest(readings) if readings else "",
    }
    output = output_folder("visualize", settings.output, fingerprint(deciding(settings) | inputs))
    with only_writer(output):
        made = visualize(
            settings,
            templates=templates,
            sae=sae,
            recognizer=recognizer,
            output=output,
            activity=activity,
            on_metrics=run.on_metrics,
        )
    run.set_tags({"fsae.force": "true"} if settings.force else {})
    for path in (made.grid, made.table, made.history):
        run.log_path(path)
    for image in made.images:
        run.log_path(image.path, "images")


if __name__ == "__main__":
    main()
