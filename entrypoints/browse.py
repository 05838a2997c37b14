"""Make the feature browser: a page that shows every feature."""

from fsae_mlflow.report.browser.settings import BrowseSettings
from fsae_mlflow.tracking.command import command


@command(BrowseSettings, stage="browse")
def main(settings, run):
    """Make a page that shows every feature: its faces, its optimized images, what it means, and how sure that is."""
    from pathlib import Path

    from fsae_mlflow.features.table import read_readings, readings_digest
    from fsae_mlflow.files.documents import sha256
    from fsae_mlflow.files.locks import only_writer
    from fsae_mlflow.parameters import deciding, fingerprint, output_folder
    from fsae_mlflow.report.browser.images import NO_IMAGES, read_images
    from fsae_mlflow.report.browser.page import heading, write_browser
    from fsae_mlflow.sae.saved import digest, load_sae
    from fsae_mlflow.tracking.data.inputs import find_images, find_readings, find_sae, open_templates

    templates = open_templates(run, settings.templates, context="browser")
    folder = find_sae(run, settings.sae)
    sae, readings = load_sae(folder), find_readings(run, settings.readings)
    of_sae = {"sae": digest(folder), "d_sae": sae.d_sae, "templates": templates, "force": settings.force}
    description = read_readings(readings, **of_sae)
    made = None if settings.images == "none" else find_images(run, settings.images)
    images = read_images(made, sae=digest(folder), force=settings.force) if made else NO_IMAGES
    inputs = {
        "templates": templates.digest,
        "sae": digest(folder),
        "readings": readings_digest(readings),
        "images": images.digest,
        "explanation": [sha256(Path(name)) for name in settings.explanations if Path(name).is_file()],
    }
    output = output_folder("browse", settings.output, fingerprint(deciding(settings) | inputs))
    with only_writer(output):
        browsed = write_browser(
            settings,
            templates=templates,
            sae=sae,
            description=description,
            images=images,
            about=heading(templates, sae, description, digest(folder)),
            output=output,
        )
    run.set_tags({"fsae.force": "true"} if settings.force else {})
    run.under("browser")({"n_features": browsed.n_features, "n_pages": len(browsed.pages), "bytes": browsed.n_bytes}, 0)
    for path in browsed.pages:
        run.log_path(path)
    run.conclude(f"{browsed.n_features:,} features; open {browsed.pages[0]}", folder=output)


if __name__ == "__main__":
    main()
