"""Verify pairs of faces with original and with decoded templates."""

from fsae_mlflow.tracking.command import command
from fsae_mlflow.verification.settings import EvaluateSettings


@command(EvaluateSettings, stage="evaluate_lfw")
def main(settings, run):
    """Measure face verification (LFW's protocol) with original templates and with what an SAE keeps of them."""
    from fsae_mlflow.sae.saved import load_sae
    from fsae_mlflow.tracking.inputs import find_sae, open_templates
    from fsae_mlflow.verification.evaluation import evaluate

    templates = open_templates(run, settings.templates, context="verification")
    sae = None if settings.sae == "none" else load_sae(find_sae(run, settings.sae))
    counted = (
        open_templates(run, settings.density_templates, context="density", parameter="density_templates")
        if settings.density_templates
        else None
    )
    evaluation = evaluate(
        settings,
        templates=templates,
        sae=sae,
        output=run.output(settings.output),
        density_templates=counted,
        on_metrics=run.on_metrics,
    )
    for path in evaluation.files:
        run.log_path(path)
    run.log_table([{"setting": row.label, **row.metrics} for row in evaluation.rows], "table.json")


if __name__ == "__main__":
    main()
