"""Explain why two faces match."""

from pathlib import Path

from fsae_mlflow.explanation.settings import ExplainSettings
from fsae_mlflow.tracking.command import command


@command(ExplainSettings, stage="explain")
def main(settings, run):
    """Split the similarity of two faces into the features that make it, with what they mean and where they look."""
    from fsae_mlflow.explanation.stage import explain
    from fsae_mlflow.extraction.single import recognizer_of
    from fsae_mlflow.files.documents import sha256
    from fsae_mlflow.files.locks import only_writer
    from fsae_mlflow.parameters import deciding, fingerprint, output_folder
    from fsae_mlflow.sae.saved import digest, load_sae
    from fsae_mlflow.tracking.data.inputs import find_sae, open_readings, open_templates
    from fsae_mlflow.verification.pairs import pairs_path

    templates = open_templates(run, settings.templates, context="explanation")
    folder = find_sae(run, settings.sae)
    sae = load_sae(folder)
    given = {"sae": folder, "d_sae": sae.d_sae, "templates": templates, "shown": settings.reading_templates}
    description, shown, readings = open_readings(run, settings.readings, **given)
    files = [Path(settings.first), Path(settings.second), *([pairs_path(settings.pairs)] if settings.pairs else [])]
    pictures = any(path.is_file() for path in files[:2])
    recognizer = None
    if settings.maps or pictures:
        recognizer = recognizer_of(templates, name=settings.recognizer, card=settings.recognizer_card)
    inputs = {
        "recognizer": recognizer.origin.digest if recognizer else "",
        "templates": templates.digest,
        "sae": digest(folder),
        "readings": readings,
        "shown": shown.digest if shown else "",
        "files": [sha256(path) for path in files if path.is_file()],
    }
    output = output_folder("explain", settings.output, fingerprint(deciding(settings) | inputs))
    given = {"templates": templates, "sae": sae, "description": description, "shown": shown}
    with only_writer(output):
        explained = explain(
            settings, **given, recognizer=recognizer, output=output, on_metrics=run.under("explanation")
        )
    run.set_tags({"fsae.force": "true"} if settings.force else {})
    for path in explained.files:
        run.log_path(path)
    run.conclude(explained.headline, folder=output, picture=f"{explained.explanations[0].name}.png")


if __name__ == "__main__":
    main()
