"""Optimise images that fire features of an SAE."""

from fsae_mlflow.tracking.command import command
from fsae_mlflow.visualization.settings import VisualizeSettings


@command(VisualizeSettings, stage="visualize")
def main(settings, run):
    """Show what features look for: the faces that fire them most, beside images optimised to fire them."""
    from fsae_mlflow.recognizers.registry import load_recognizer
    from fsae_mlflow.sae.checkpoint import load_sae
    from fsae_mlflow.tracking.inputs import find_sae, open_templates
    from fsae_mlflow.visualization.visualize import visualize

    templates = open_templates(run, settings.templates, context="visualization")
    sae = load_sae(find_sae(run, settings.sae))
    made_by = templates.metadata["settings"]
    recognizer = load_recognizer(
        settings.recognizer or made_by["recognizer"], card=settings.recognizer_card or made_by["recognizer_card"]
    )
    output = run.output(settings.output)
    visualize(settings, templates=templates, sae=sae, recognizer=recognizer, output=output, on_metrics=run.on_metrics)
    run.log_path(output)


if __name__ == "__main__":
    main()
