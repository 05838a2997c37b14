"""Optimize images that fire features of an SAE."""

from fsae_mlflow.tracking.command import command
from fsae_mlflow.visualization.settings import VisualizeSettings


@command(VisualizeSettings, stage="visualize")
def main(settings, run):
    """Show what features respond to: the faces that fire them most, and images optimized to fire them."""
    from fsae_mlflow.extraction.single import recognizer_of
    from fsae_mlflow.features.labels.attributes import digest_of
    from fsae_mlflow.features.table import read_readings, readings_digest, write_with_columns
    from fsae_mlflow.files.locks import only_writer
    from fsae_mlflow.parameters import deciding, fingerprint, output_folder
    from fsae_mlflow.recognizers.registry import load_recognizer
    from fsae_mlflow.sae.saved import digest, load_sae
    from fsae_mlflow.tracking.data.inputs import READINGS, find_readings, find_sae, open_templates
    from fsae_mlflow.tracking.data.outputs import log_images
    from fsae_mlflow.visualization.figures import image_table, write_figures
    from fsae_mlflow.visualization.stage import visualize

    templates = open_templates(run, settings.templates, context="visualization")
    folder = find_sae(run, settings.sae)
    sae = load_sae(folder)
    readings = find_readings(run, settings.readings) if settings.readings else None
    of_sae = {"sae": digest(folder), "d_sae": sae.d_sae, "templates": templates, "force": settings.force}
    description = read_readings(readings, **of_sae) if readings else None
    recognizer = recognizer_of(templates, name=settings.recognizer, card=settings.recognizer_card)
    others = {
        name: load_recognizer(getattr(settings, name), card=getattr(settings, f"{name}_card"), parameter=name)
        for name in ("judge", "ensemble")
        if getattr(settings, name)
    }
    about = {"templates": templates.digest, "sae": digest(folder), "recognizer": recognizer.origin.digest}
    about |= {name: one.origin.digest for name, one in others.items()}
    told = {"readings": readings_digest(readings) if readings else "", "attributes": digest_of(settings.attributes)}
    output = output_folder("visualize", settings.output, fingerprint(deciding(settings) | about | told))
    given = {"templates": templates, "sae": sae, "recognizer": recognizer, "description": description, "about": about}
    with only_writer(output):
        log = {"on_metrics": run.of_sae("images"), "on_image": run.on_image("feature_images/optimization")}
        made = visualize(settings, **given, **others, output=output, **log)
        figures = write_figures(
            settings, made, templates, description, output, on_sheet=run.on_image("feature_images/sheets")
        )
        written = write_with_columns(readings, output / READINGS, made.columns(sae.d_sae)) if readings else []
    run.set_tags({"fsae.force": "true"} if settings.force else {})
    for path in (*figures, *written):
        run.log_path(path, path.relative_to(output).parent.as_posix().removeprefix("."))
    log_images(run, (*made.files, *made.folders), output)
    run.log_table(image_table(made, output), "images.json")
    run.conclude(made.headline, folder=output, picture="features.png")


if __name__ == "__main__":
    main()
