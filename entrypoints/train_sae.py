"""Train a sparse autoencoder on a template set."""

from fsae_mlflow.sae.settings import TrainSettings
from fsae_mlflow.tracking.command import command


@command(TrainSettings, stage="train_sae")
def main(settings, run):
    """Train a sparse autoencoder on the templates of a template set, and register it as an MLflow model."""
    from fsae_mlflow.sae.training import train
    from fsae_mlflow.tracking.inputs import SAE, open_templates
    from fsae_mlflow.tracking.registry import register_sae

    templates = open_templates(run, settings.templates, context="training")
    trained = train(settings, templates=templates, output=run.output(settings.output), on_metrics=run.on_metrics)
    run.on_metrics(trained.figures, settings.epochs)
    run.log_path(trained.folder, SAE)
    register_sae(run, trained.sae, trained.folder, name=settings.model_name if settings.register else "")


if __name__ == "__main__":
    main()
