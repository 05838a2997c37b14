"""All main stages on pictures of your own, as child runs of one run."""

from fsae_mlflow.pipeline.settings import PipelineSettings
from fsae_mlflow.tracking.command import command


@command(PipelineSettings, stage="pipeline")
def main(settings, run):
    """Run all main stages as child runs, from pictures to the feature browser, and gather their metrics and pictures.

    A stage takes its own parameters with its name before them: --train_sae.k 32, -P train_sae.k=32. A stage that has
    run with the same inputs, settings and code is reused, also after this command was stopped.
    """
    from fsae_mlflow.tracking.children.pipeline import run_pipeline

    run_pipeline(run, settings)


if __name__ == "__main__":
    main()
