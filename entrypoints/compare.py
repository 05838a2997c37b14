"""Find the features of SAEs again in one another."""

from pathlib import Path

from fsae_mlflow.features.settings import CompareSettings
from fsae_mlflow.tracking.command import command


@command(CompareSettings, stage="compare")
def main(settings, run):
    """Match the features of SAEs by direction and by the faces that fire them: seeds, variants, sizes, recognizers."""
    from fsae_mlflow.features.comparison.stage import STABILITY, Compared, compare
    from fsae_mlflow.features.table import read_description, readings_digest, write_with_columns
    from fsae_mlflow.files.locks import only_writer
    from fsae_mlflow.parameters import deciding, fingerprint, output_folder
    from fsae_mlflow.report.stability import pair_table, write_figures
    from fsae_mlflow.sae.saved import digest, load_sae
    from fsae_mlflow.sae.training.initial import initial_sae
    from fsae_mlflow.tracking.data.inputs import READINGS, find_readings, find_sae, open_templates

    names = settings.template_names
    opened = {
        one: open_templates(run, one, context="comparison", parameter="templates") for one in dict.fromkeys(names)
    }
    folders = [find_sae(run, one, parameter=f"saes.{number}") for number, one in enumerate(settings.sae_names)]
    readings = find_readings(run, settings.readings) if settings.readings else None
    if readings:
        read_description(readings).require_of(sae=digest(folders[0]), force=settings.force)
    inputs = {
        "saes": [digest(folder) for folder in folders],
        "templates": [opened[one].digest for one in names],
        "readings": readings_digest(readings) if readings else "",
    }
    output = output_folder("compare", settings.output, fingerprint(deciding(settings) | inputs))
    saes = [
        Compared(
            name=folder.name if folder == Path(name) else name,
            sae=load_sae(folder),
            templates=opened[one],
            initial=initial_sae(folder, opened[one]) if settings.initial else None,
        )
        for name, folder, one in zip(settings.sae_names, folders, names, strict=True)
    ]
    with only_writer(output):
        comparison = compare(settings, saes=saes, output=output, on_metrics=run.under("stability"))
        written = [output / STABILITY, *write_figures(comparison, [one.templates for one in saes], output)]
        described = write_with_columns(readings, output, comparison.stability(0)) if readings else []
    for path in written:
        run.log_path(path)
    for path in described:
        run.log_path(path, READINGS)
    run.log_table(pair_table(comparison), "pairs.json")
    run.conclude(comparison.headline, folder=output, picture="stability.png")


if __name__ == "__main__":
    main()
