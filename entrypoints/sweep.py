"""Search sparsity λ and expansion with Optuna, each trial a nested run."""

from contextlib import contextmanager

from fsae_mlflow.sweep.stage import SweepSettings
from fsae_mlflow.tracking.command import command


@command(SweepSettings, stage="sweep")
def main(settings, run):
    """Search λ and expansion for the least held-out error at a given L0.

    The same command goes on with the same study.
    """
    from fsae_mlflow.report.front import front_figure
    from fsae_mlflow.sae.saved import load_sae
    from fsae_mlflow.sweep.stage import sweep
    from fsae_mlflow.tracking.inputs import open_templates
    from fsae_mlflow.tracking.registry import log_sae, register_sae
    from fsae_mlflow.tracking.runs import nested_run

    @contextmanager
    def trial_run(number, trial):
        with nested_run(run, f"trial {number}", stage="trial") as child:
            child.log_params({"lam": trial.lam, "expansion": trial.expansion, "trial": number})
            yield child.on_metrics

    templates = open_templates(run, settings.templates, context="training")
    found = sweep(settings, templates=templates, trial_run=trial_run)
    run.log_table(found.rows, "trials.json")
    run.log_path(front_figure(found.points, run.output("") / "front.png", max_l0=settings.max_l0))
    if found.best is None:
        raise ValueError(f"max_l0={settings.max_l0}: no trial is that sparse; raise max_l0, lam_max or n_trials.")
    run.set_tags({"fsae.best_trial": str(found.best.number)})
    run.on_metrics(found.best.metrics | {"best_lam": found.best.lam, "best_expansion": found.best.expansion})
    log_sae(run, found.best.folder)
    name = settings.model_name if settings.register else ""
    register_sae(run, load_sae(found.best.folder), found.best.folder, name=name, aliases=("champion",))


if __name__ == "__main__":
    main()
