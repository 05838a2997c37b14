"""Distill a recognizer into a small one."""

from fsae_mlflow.recognizers.distillation.settings import DistillSettings
from fsae_mlflow.tracking.command import command


@command(DistillSettings, stage="train_recognizer")
def main(settings, run):
    """Teach a small recognizer to give the templates of a large one, on any aligned faces."""
    from fsae_mlflow.recognizers.distillation.stage import distill

    student = distill(settings, output=run.output(settings.output), on_metrics=run.on_metrics)
    for path in (student.weights, student.card):
        run.log_path(path, "recognizer")


if __name__ == "__main__":
    main()
