"""The whole way on the embedded faces and recognizer, as child runs of one parent."""

from typing import Annotated

import click
from annotated_types import Ge

from fsae_mlflow.parameters import settings
from fsae_mlflow.tracking.command import command

PICTURES = ("accepted.png", "density.png", "table.png", "features.png")
HEADLINES = (
    "n_faces",
    "images_per_second",
    "heldout/fvu",
    "heldout/l0",
    "train/alive",
    "original/accuracy",
    "high/accuracy",
    "low/accuracy",
    "all/accuracy",
    "fires",
)


@settings
class DemoSettings:
    """What the demo starts from."""

    faces: Annotated[str, "Pictures, as extract takes them."] = "orl"
    recognizer: Annotated[str, "Recognizer, as extract takes it."] = "tiny"
    epochs: Annotated[int, "Epochs of the SAE's training.", Ge(1)] = 60
    folds: Annotated[int, "Folds of the pairs that are made.", Ge(2)] = 10
    steps: Annotated[int, "Steps of the optimized images.", Ge(1)] = 48


@command(DemoSettings, stage="demo")
def main(settings, run):
    """Extract, train, evaluate and visualize, each as an MLflow Project run, and gather their main metrics."""
    from fsae_mlflow.tracking.projects import run_entry_point

    extracted = run_entry_point(run, "extract", {"faces": settings.faces, "recognizer": settings.recognizer})
    templates = {"templates": extracted.id}
    training = {"epochs": settings.epochs, "expansion": 4, "model_name": "fsae_demo"}
    trained = run_entry_point(run, "train_sae", templates | training)
    built_on = templates | {"sae": trained.id}
    evaluated = run_entry_point(run, "evaluate_lfw", built_on | {"folds": settings.folds})
    visualized = run_entry_point(run, "visualize", built_on | {"n_features": 4, "steps": settings.steps})
    for child in (extracted, trained, evaluated, visualized):
        run.copy_from(child, metrics=HEADLINES, artifacts=PICTURES)
    metrics = run.metrics
    click.echo("\n".join(f"{name:>20}  {metrics[name]:.4g}" for name in HEADLINES if name in metrics))
    click.echo(f"\nLook at everything:  {run.ui_command}\nthen open {run.ui_address}")


if __name__ == "__main__":
    main()
