"""Search λ and expansion with Optuna."""

from contextlib import contextmanager

from fsae_mlflow.parameters import flat
from fsae_mlflow.sweep.settings import SweepSettings
from fsae_mlflow.tracking.command import command


@command(SweepSettings, stage="sweep")
def main(settings, run):
    """Search the λ and the expansion of least held-out fvu with L0 at most max_l0; each trial is a nested run.

    The same command continues the same study.
    """
    from fsae_mlflow.errors import UserError
    from fsae_mlflow.features.describe import reading_metrics
    from fsae_mlflow.features.settings import DescribeSettings
    from fsae_mlflow.report.front import front_figure
    from fsae_mlflow.sae.saved import load_sae
    from fsae_mlflow.sweep.stage import sweep
    from fsae_mlflow.tracking.inputs import open_templates
    from fsae_mlflow.tracking.registry import check_registration, log_sae, register_sae
    from fsae_mlflow.tracking.runs import nested_run

    @contextmanager
    def trial_run(number, trial):
        with nested_run(run, f"trial {number}", stage="trial") as child:
            values = flat(trial)
            child.log_params({"lam": values["lam"], "expansion": values["expansion"], "trial": number})
            yield child.on_epoch

    name = settings.model_name if settings.register else ""
    check_registration(run, name)
    templates = open_templates(run, settings.templates, context="training")
    found = sweep(settings, templates=templates, trial_run=trial_run)
    run.log_table(found.rows, "trials.json")
    run.log_path(front_figure(found.points, found.folder / "front.png", max_l0=settings.max_l0))
    if found.best is None:
        raise UserError(f"max_l0={settings.max_l0}: every trial has a larger L0; increase max_l0, lam_max or n_trials.")
    run.set_tags({"fsae.best_trial": str(found.best.number)})
    run.under("sweep")(found.best.metrics | {"best_lam": found.best.lam, "best_expansion": found.best.expansion}, 0)
    log_sae(run, found.best.folder)
    sae = load_sae(found.best.folder)
    register_sae(run, sae, found.best.folder, name=name, aliases=("champion",))
    if settings.describe:
        run.on_metrics(reading_metrics(DescribeSettings(device=settings.device), templates=templates, sae=sae))
    run.conclude(found.headline, folder=found.folder, picture="front.png")


if __name__ == "__main__":
    main()
