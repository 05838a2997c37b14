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
    trained = train(settings, templates=templates, output=output, on_metrics=run.on_epoch)
    run.under("train")(trained.metrics, 0)
    if run.leads:
        found = spectrum(templates)
        run.on_metrics(found.metrics)
        warn_if_useless(trained.metrics, found, computed=bool(settings.variant.directions))
    log_sae(run, trained.folder)
    register_sae(run, trained.sae, trained.folder, name=name, recognizer=recognizer)
    if settings.describe and run.leads:
        reading = DescribeSettings(device=settings.device)
        run.of_sae("readings")(reading_metrics(reading, templates=templates, sae=trained.sae), 0)
        run.update_card()
    run.conclude(trained.headline, folder=trained.folder)


if __name__ == "__main__":
    main()
