"""All main stages on the embedded faces and recognizer, as child runs of one run."""

from typing import Annotated

from annotated_types import Ge

from fsae_mlflow.parameters import settings, short
from fsae_mlflow.tracking.command import command


@settings
class DemoSettings:
    """The input and the size of the demo."""

    faces: Annotated[str, "Pictures of faces, as for extract."] = "orl"
    recognizer: Annotated[str, "Recognizer, as for extract."] = "tiny"
    epochs: Annotated[int, "Epochs of the SAE's training.", Ge(1)] = 60
    folds: Annotated[int, "Folds of the verification pairs.", Ge(2)] = 10
    steps: Annotated[int, "Steps of the optimized images.", Ge(1)] = 80
    cache: Annotated[bool, "Whether a finished run of the same inputs, settings and code is reused."] = True

    @property
    def title(self) -> str:
        """What sets a run apart, in a few words."""
        return f"{short(self.faces)} {short(self.recognizer)}"


@command(DemoSettings, stage="demo")
def main(settings, run):
    """Run all main stages as child runs, with settings for few faces and little time, and gather what they show."""
    from fsae_mlflow.pipeline.settings import PipelineSettings
    from fsae_mlflow.tracking.children.pipeline import run_pipeline

    training = {"expansion": 1, "batch_size": 64, "normalize": True, "mixup": 1.0, "epochs": settings.epochs}
    stages = {
        "train_sae": training | {"model_name": "fsae_demo"},
        "describe": {"controls": "none"},
        "explain": {"far": 0.01, "folds": settings.folds},
        "evaluate_lfw": {"folds": settings.folds},
        "visualize": {"n_features": 6, "steps": settings.steps},
    }
    given = {"faces": settings.faces, "recognizer": settings.recognizer, "cache": settings.cache}
    run_pipeline(run, PipelineSettings(**given, stages=stages))


if __name__ == "__main__":
    main()
