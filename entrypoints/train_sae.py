"""Train a sparse autoencoder on a template set."""

from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.tracking.command import command


@command(TrainSettings, stage="train_sae")
def main(settings, run):
    """Train a sparse autoencoder on the templates of a template set, and register it as an MLflow model.

    The same command goes on with a training that was stopped.
    """
    from fsae_mlflow.features.describe import reading_metrics
    from fsae_mlflow.features.settings import DescribeSettings
    from fsae_mlflow.parameters import output_folder
    from fsae_mlflow.report.densities import density_series, draw_densities
    from fsae_mlflow.sae.training.checkpoint import training_fingerprint
    from fsae_mlflow.sae.training.dimensions import warn_if_useless
    from fsae_mlflow.sae.training.stage import train
    from fsae_mlflow.templates.spectrum import spectrum
    from fsae_mlflow.tracking.data.inputs import open_templates
    from fsae_mlflow.tracking.registry import check_registration, find_embeddable, log_sae, register_sae

    name = settings.model_name if settings.register else ""
    check_registration(run, name)
    templates = open_templates(run, settings.templates, context="training")
    recognizer = find_embeddable(settings, templates)
    output = output_folder("train_sae", settings.output, training_fingerprint(settings, templates.digest))
    series = density_series(output / "densities", settings.epochs, run.on_image("densities"))
    trained = train(settings, templates=templates, output=output, on_metrics=run.on_epoch, on_densities=series)
    run.under("train")(trained.metrics, 0)
    if run.leads:
        found = spectrum(templates)
        run.on_metrics(found.metrics)
        warn_if_useless(trained.metrics, found, computed=bool(settings.variant.directions))
        density = trained.sae.density.double().numpy()
        for path in draw_densities(density, output / "density.png", source="training faces"):
            run.log_path(path)
    log_sae(run, trained.folder)
    register_sae(run, trained.sae, trained.folder, name=name, recognizer=recognizer)
    if settings.describe and run.leads:
        reading = DescribeSettings(device=settings.device)
        run.of_sae("readings")(reading_metrics(reading, templates=templates, sae=trained.sae), 0)
        run.update_card()
    run.conclude(trained.headline, folder=trained.folder, picture="density.png")


if __name__ == "__main__":
    main()
