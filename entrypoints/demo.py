"""All main stages on the embedded faces and recognizer, as child runs of one run."""

from typing import Annotated

import click
from annotated_types import Ge

from fsae_mlflow.parameters import settings, short
from fsae_mlflow.tracking.command import command

PICTURES = ("accepted", "readings", "genuine-typical", "impostor-hardest", "density", "table", "features")


@settings
class DemoSettings:
    """The input and the size of the demo."""

    faces: Annotated[str, "Pictures of faces, as for extract."] = "orl"
    recognizer: Annotated[str, "Recognizer, as for extract."] = "tiny"
    epochs: Annotated[int, "Epochs of the SAE's training.", Ge(1)] = 60
    folds: Annotated[int, "Folds of the verification pairs.", Ge(2)] = 10
    steps: Annotated[int, "Steps of the optimized images.", Ge(1)] = 80

    @property
    def title(self) -> str:
        """What sets a run apart, in a few words."""
        return f"{short(self.faces)} {short(self.recognizer)}"


@command(DemoSettings, stage="demo")
def main(settings, run):
    """Run all main stages as child runs, and gather their main metrics and pictures."""
    from fsae_mlflow.errors import UserError
    from fsae_mlflow.tracking.groups import MAIN
    from fsae_mlflow.tracking.projects import run_entry_point

    extracted = run_entry_point(run, "extract", {"faces": settings.faces, "recognizer": settings.recognizer})
    templates = {"templates": extracted.id}
    few = {"expansion": 1, "batch_size": 64, "normalize": True, "mixup": 1.0, "epochs": settings.epochs}
    trained = run_entry_point(run, "train_sae", templates | few | {"model_name": "fsae_demo"})
    built_on = templates | {"sae": trained.id}
    described = []
    try:
        described.append(run_entry_point(run, "describe", built_on | {"controls": "none"}))
        told = {"readings": described[0].id, "far": 0.01, "folds": settings.folds}
        described.append(run_entry_point(run, "explain", built_on | told))
    except UserError as error:  # few people cannot be read, few pairs not be judged
        click.echo(error)
    evaluated = run_entry_point(run, "evaluate_lfw", built_on | {"folds": settings.folds})
    shown = built_on | ({"readings": described[0].id} if described else {})
    visualized = run_entry_point(run, "visualize", shown | {"n_features": 6, "steps": settings.steps})
    browsed = [run_entry_point(run, "browse", shown | {"images": visualized.id})] if described else []
    for child in (extracted, trained, *described, evaluated, visualized, *browsed):
        run.copy_from(child, metrics=MAIN, artifacts=[*(f"{name}.png" for name in PICTURES), "features.html"])
    told = f"accuracy {run.metrics['lfw/original/accuracy']:.4f}, decoded {run.metrics['lfw/all/accuracy']:.4f}"
    run.conclude(f"{told}; see features.html", folder=run.journal.folder.parent, picture="features.png")


if __name__ == "__main__":
    main()
