"""Read what each feature of an SAE means."""

from fsae_mlflow.features.settings import DescribeSettings
from fsae_mlflow.tracking.command import command


@command(DescribeSettings, stage="describe")
def main(settings, run):
    """Find on some people what each feature of an SAE responds to, confirm it on others, and compare with controls."""
    from contextlib import nullcontext

    from fsae_mlflow.errors import UserError
    from fsae_mlflow.features.describe import describe
    from fsae_mlflow.features.labels.attributes import digest_of
    from fsae_mlflow.files.locks import only_writer
    from fsae_mlflow.parameters import deciding, fingerprint, output_folder
    from fsae_mlflow.recognizers.registry import load_recognizer
    from fsae_mlflow.report.described import reading_table, write_figures
    from fsae_mlflow.sae.saved import digest, load_sae
    from fsae_mlflow.sae.training.stage import trained_on
    from fsae_mlflow.tracking.data.inputs import find_sae, open_templates
    from fsae_mlflow.tracking.data.outputs import log_readings
    from fsae_mlflow.tracking.models.shipping import write_shipped

    templates = open_templates(run, settings.templates, context="readings")
    folder = find_sae(run, settings.sae)
    sae = load_sae(folder)
    judge = load_recognizer(settings.judge, card=settings.judge_card, parameter="judge") if settings.judge else None
    if judge and judge.origin.digest == templates.origin.digest:
        raise UserError("judge must differ from the recognizer of the templates; give another, or leave judge empty.")
    about = {"templates": templates.digest, "sae": digest(folder)}
    inputs = about | {
        "attributes": digest_of(settings.attributes),
        "judge": judge.origin.digest if judge else "",
    }
    output = output_folder("describe", settings.output, fingerprint(deciding(settings) | inputs))
    given = {"templates": templates, "sae": sae, "judge": judge, "seen": trained_on(folder, templates)}
    with only_writer(output) if run.leads else nullcontext():
        described = describe(settings, **given, about=about, output=output, on_metrics=run.of_sae("features"))
        if described is None:
            return
        figures = write_figures(described, templates, output)
        run.update_card(write_shipped(described.description, output))
    run.set_tags({"fsae.force": "true"} if settings.force else {})
    log_readings(run, described.files, output)
    for path in figures:
        run.log_path(path)
    run.log_table(reading_table(described), "readings.json")
    run.log_table([{"dictionary": name, **metrics} for name, metrics in described.metrics.items()], "dictionary.json")
    run.conclude(described.headline, folder=output, picture="readings.png")


if __name__ == "__main__":
    main()
