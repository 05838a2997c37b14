"""Search the settings of a training with Optuna."""

from fsae_mlflow.sweep.settings import SweepSettings
from fsae_mlflow.tracking.command import command


@command(SweepSettings, stage="sweep")
def main(settings, run):
    """Search the settings of the best SAE; each trial is a training and a nested run.

    The same command continues the same study, and started several times it shares the trials among the processes
    (docs/sweeps.md).
    """
    from fsae_mlflow.errors import UserError
    from fsae_mlflow.features.describe import reading_metrics
    from fsae_mlflow.features.settings import DescribeSettings
    from fsae_mlflow.sweep.stage import sweep
    from fsae_mlflow.tracking.children.trials import log_best, log_sweep, trial_runs
    from fsae_mlflow.tracking.data.inputs import open_templates
    from fsae_mlflow.tracking.registry import check_registration, find_embeddable
    from fsae_mlflow.tracking.runs.journal import PATTERN

    name = settings.model_name if settings.register else ""
    check_registration(run, name)
    templates = open_templates(run, settings.templates, context="training")
    recognizer = find_embeddable(settings, templates)
    found = sweep(
        settings,
        templates=templates,
        start_run=trial_runs(run, templates),
        journals=lambda: run.journal.folder.glob(PATTERN),
    )
    if not found.trials:
        raise UserError(f"No trial has finished ({found.n_pruned} were pruned); increase n_trials or minutes.")
    log_sweep(run, found)
    if found.best is None:
        raise UserError(found.nothing_within)
    sae = log_best(run, found.best, name=name, max_l0=settings.max_l0, recognizer=recognizer)
    if settings.describe:
        reading = DescribeSettings(device=settings.device)
        run.of_sae("readings")(reading_metrics(reading, templates=templates, sae=sae), 0)
        run.update_card()
    run.conclude(found.headline, folder=found.folder, picture="front.png")


if __name__ == "__main__":
    main()
