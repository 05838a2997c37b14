"""Verify pairs of faces with original templates and with templates decoded from an SAE's features."""

from fsae_mlflow.tracking.command import command
from fsae_mlflow.verification.settings import EvaluateSettings


@command(EvaluateSettings, stage="evaluate_lfw")
def main(settings, run):
    """Measure face verification (LFW's protocol) with original templates and with templates decoded by an SAE."""
    from fsae_mlflow.features.labels.attributes import digest_of
    from fsae_mlflow.features.table import read_readings, readings_digest
    from fsae_mlflow.files.documents import sha256
    from fsae_mlflow.files.locks import only_writer
    from fsae_mlflow.parameters import deciding, fingerprint, output_folder
    from fsae_mlflow.sae.saved import digest, load_sae
    from fsae_mlflow.tracking.data.inputs import find_readings, find_sae, open_optional, open_templates
    from fsae_mlflow.verification.evaluation import evaluate
    from fsae_mlflow.verification.pairs import pairs_path

    templates = open_templates(run, settings.templates, context="verification")
    folder = None if settings.sae == "none" else find_sae(run, settings.sae)
    sae = load_sae(folder) if folder else None
    counted = open_optional(run, settings.density_templates, context="density", parameter="density_templates")
    labeled = open_optional(run, settings.labeled_templates, context="labels", parameter="labeled_templates")
    readings = find_readings(run, settings.readings) if settings.readings else None
    description = None
    if readings and folder and sae:
        description = read_readings(readings, sae=digest(folder), d_sae=sae.d_sae, force=settings.force)
    inputs = {
        "templates": templates.digest,
        "sae": digest(folder) if folder else "",
        "density_templates": counted.digest if counted else "",
        "labeled_templates": labeled.digest if labeled else "",
        "attributes": digest_of(settings.attributes),
        "readings": readings_digest(readings) if readings else "",
        "pairs": sha256(path) if settings.pairs and (path := pairs_path(settings.pairs)).is_file() else "",
    }
    output = output_folder("evaluate_lfw", settings.output, fingerprint(deciding(settings) | inputs))
    with only_writer(output):
        evaluation = evaluate(
            settings,
            templates=templates,
            sae=sae,
            output=output,
            density_templates=counted,
            description=description,
            labeled=labeled,
            on_metrics=run.of_sae("lfw"),
        )
    run.set_tags({"fsae.force": "true"} if settings.force else {})
    for path in evaluation.files:
        run.log_path(path)
    run.log_table([{"setting": row.label, **row.metrics} for row in evaluation.rows], "table.json")
    run.update_card()
    run.conclude(evaluation.headline, folder=output, picture="table.png")


if __name__ == "__main__":
    main()
