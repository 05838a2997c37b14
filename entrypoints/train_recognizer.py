"""Distill a recognizer into a small one."""

from fsae_mlflow.files.locks import only_writer
from fsae_mlflow.parameters import output_folder
from fsae_mlflow.recognizers.distillation.settings import DistillSettings
from fsae_mlflow.tracking.command import command


@command(DistillSettings, stage="train_recognizer")
def main(settings, run):
    """Train a small recognizer to return the templates of a large one, on any aligned faces."""
    from fsae_mlflow.recognizers.distillation.stage import distill, distillation_fingerprint
    from fsae_mlflow.tracking.groups import grouped

    def on_epoch(metrics, epoch):
        run.on_epoch(grouped(metrics, "recognizer"), epoch)

    name = "" if settings.output else distillation_fingerprint(settings)
    output = output_folder("train_recognizer", settings.output, name)
    with only_writer(output):
        student = distill(settings, output=output, on_metrics=on_epoch)
    for path in (student.weights, student.card):
        run.log_path(path, "recognizer")
    run.under("recognizer")(student.metrics, 0)
    run.conclude(student.headline, folder=output)


if __name__ == "__main__":
    main()
