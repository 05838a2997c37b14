"""The model card of a registered SAE: Markdown on the version and on the registered model, and the version's tags."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.artifacts import load_dict
from mlflow.entities import LoggedModel, Metric
from mlflow.tracking import MlflowClient

from fsae_mlflow.provenance import Origin
from fsae_mlflow.sae.saved import CONFIG
from fsae_mlflow.templates.marker import source_name
from fsae_mlflow.tracking.description import page_of
from fsae_mlflow.tracking.groups import main_metrics
from fsae_mlflow.tracking.models.logged import EMBEDDED_TAG, FORMAT_TAG
from fsae_mlflow.tracking.models.readings import READINGS_FILE, Shipped

TITLE = "# Sparse autoencoder"
"""A description that begins otherwise was written by a person, and stays."""
READINGS_TAG = "fsae.readings"
"""On a LoggedModel that has readings: the digest of the template set that they were read on."""
N_READINGS = 8


def write_cards(client: MlflowClient, model_id: str) -> None:
    """Write the card and the tags of every registered version of a LoggedModel, and of the registered models."""
    model = client.get_logged_model(model_id)
    # The model's tag of its versions, which MLflow keeps, still names deleted and renamed ones.
    versions = client.search_model_versions(f"source_path = 'models:/{model_id}'")
    if not versions:
        return
    config = load_dict(f"{model.artifact_location}/artifacts/sae/{CONFIG}")
    metrics = newest(model.metrics or [])
    readings = _readings(model)
    for one in versions:
        name, number = one.name, str(one.version)
        card = version_card(config, metrics, readings, uri=f"models:/{name}/{number}", model=model)
        if (one.description or TITLE).startswith(TITLE):
            client.update_model_version(name, number, card)
        for tag, value in tags_of(config, metrics).items():
            client.set_model_version_tag(name, number, tag, value)
        if (client.get_registered_model(name).description or TITLE).startswith(TITLE):
            client.update_registered_model(name, model_card(name, config))


def add_readings(client: MlflowClient, model_id: str, path: Path) -> None:
    """Add what the features mean to a LoggedModel, in the place of what was there; its served model uses it."""
    client.log_model_artifact(model_id, str(path), "artifacts")
    client.set_logged_model_tags(model_id, {READINGS_TAG: Shipped.read(path).templates})


def _readings(model: LoggedModel) -> Shipped | None:
    if READINGS_TAG not in model.tags:
        return None
    return Shipped.of(load_dict(f"{model.artifact_location}/artifacts/{READINGS_FILE}"))


def newest(metrics: Sequence[Metric]) -> dict[str, Metric]:
    """By name the metric that was logged last."""
    return {metric.key: metric for metric in sorted(metrics, key=lambda one: (one.timestamp, one.step))}


def tags_of(config: Mapping[str, Any], metrics: Mapping[str, Metric]) -> dict[str, str]:
    """The numbers by which versions are compared in the registry, as tags."""
    final = config.get("metrics", {})
    side = "heldout" if "heldout/fvu" in final else "train"
    tags = {f"fsae.{name}": f"{final[f'{side}/{name}']:.4g}" for name in ("l0", "fvu") if f"{side}/{name}" in final}
    if accuracy := metrics.get("lfw/all/accuracy"):
        tags["fsae.lfw_accuracy"] = f"{accuracy.value:.4f}"
    return tags


def version_card(
    config: Mapping[str, Any],
    metrics: Mapping[str, Metric],
    readings: Shipped | None,
    *,
    uri: str,
    model: LoggedModel,
) -> str:
    """The card of one version, in Markdown."""
    shape, templates = config["hyperparameters"], config["templates"]
    card = templates.get("recognizer") or {}
    source = source_name(templates) or "unknown"
    training = page_of(model.experiment_id, str(model.source_run_id))
    rows = {
        "Variant": f"{config['variant']}, {shape['d_in']:,} → {shape['d_sae']:,} features",
        "Trained on": f"{templates.get('n_rows', 0):,} templates of {source} (digest {templates.get('digest', '?')})",
        "Held out": f"{100 * config['settings'].get('holdout', 0):.0f} % of the people",
        "Recognizer": f"{card.get('name', 'unknown')} (digest {Origin.of('', card).digest or 'unknown'})",
        "Its license": card.get("licence") or "unknown: treat as research only",
        "Its training data": card.get("training_data") or "unknown",
        "Carries the recognizer": "yes: it takes pictures too" if EMBEDDED_TAG in model.tags else "no",
        "Run": f"[{model.source_run_id}]({training})",
    }
    sections = [
        f"{TITLE} · {config['variant']}, {shape['d_sae']:,} features of face templates",
        _table(("", ""), rows.items()),
        *_metric_section(config, metrics),
        *_reading_section(readings),
        "## Limits",
        _limits(config, card),
        "## Use",
        _usage(
            uri,
            shape["d_in"],
            with_readings=readings is not None,
            with_pictures=EMBEDDED_TAG in model.tags,
            first_format=FORMAT_TAG not in model.tags,
        ),
    ]
    return "\n\n".join(sections) + "\n"


def model_card(name: str, config: Mapping[str, Any]) -> str:
    """The description of a registered model: what its versions and its aliases are."""
    d_in = config["hyperparameters"]["d_in"]
    return (
        f"{TITLE}s of face templates (width {d_in})\n\n"
        "Each version has a card. `champion` is the version with the least held-out fvu, below 1, within the L0 limit "
        "`fsae.max_l0`, on one template set and the same held-out people; `challenger` the newest that did not take "
        "it; `champion_previous` the champion before. The tag `fsae.verdict` says why a version got its alias.\n\n"
        f"```python\nmodel = mlflow.pyfunc.load_model('models:/{name}@champion')\n"
        "features = model.predict(templates)\n```\n"
    )


def _metric_section(config: Mapping[str, Any], metrics: Mapping[str, Metric]) -> list[str]:
    rows = list(_metric_rows(config, metrics))
    return ["## Metrics", _table(("metric", "value", "on"), rows)] if rows else []


def _metric_rows(config: Mapping[str, Any], metrics: Mapping[str, Metric]) -> Iterator[tuple[str, str, str]]:
    values = config.get("metrics", {}) | {name: metric.value for name, metric in metrics.items()}
    for name, value in main_metrics(values).items():
        group, _, last = name.rpartition("/")
        bounds = [values.get(f"{group}/{bound}") for bound in ("wilson_low", "wilson_high")]
        interval = f" (95 %: {bounds[0]:.4f}…{bounds[1]:.4f})" if last == "accuracy" and None not in bounds else ""
        yield name, f"{value:.4g}{interval}", (name in metrics and metrics[name].dataset_name) or ""


def _reading_section(readings: Shipped | None) -> list[str]:
    if readings is None:
        return []
    read = [feature for feature, text in enumerate(readings.reading) if text not in ("unread", "dead")]
    named = list(zip(readings.attribute, readings.identity, readings.pose, strict=True))
    first = {named[feature]: feature for feature in reversed(read)}  # one feature for each meaning
    shown = [(str(feature), readings.reading[feature]) for feature in sorted(first.values())[:N_READINGS]]
    count = f"{len(read):,} of {len(readings.reading):,} features have a confirmed reading; some of them:"
    return ["## What features mean", count, _table(("feature", "reading"), shown)]


def _limits(config: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    metrics = config.get("metrics", {})
    fvu = metrics.get("heldout/fvu")
    lines = [
        f"It takes templates of the recognizer {card.get('name', 'that it was trained on')} only; those of another one "
        "give numbers without meaning.",
        "It was not measured on held-out people."
        if fvu is None
        else f"On people that it has not seen it leaves {100 * fvu:.1f} % of the templates' variance unexplained."
        if fvu < 1
        else f"On people that it has not seen it is worse than the mean template (fvu {fvu:.4g}).",
        "A reading is a correlation that other people, or other pictures of a person, confirm, and not a cause. Do not "
        "decide about people by it.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _usage(uri: str, d_in: int, *, with_readings: bool, with_pictures: bool, first_format: bool) -> str:
    if first_format:
        return f"""```python
model = mlflow.pyfunc.load_model("{uri}")
model.predict(templates)                                        # (n, {d_in}) float32 → features (n, d_sae)
model.predict(templates, params={{"output": "reconstruction", "without": "17,42"}})
```"""
    readings = "and what they mean" if with_readings else "and what they mean, after describe"
    pictures = """
model.predict([first, second], params={"output": "match"})       # two pictures (bytes of JPEG, PNG) → why they match"""
    return f"""```python
model = mlflow.pyfunc.load_model("{uri}")
model.predict(templates)                                         # (n, {d_in}) → features (n, d_sae)
model.predict(templates, params={{"output": "top", "k": 10}})      # the strongest features of each
model.predict(templates, params={{"output": "readings"}})          # {readings}
model.predict(templates, params={{"output": "reconstruction", "without": "17,42"}}){pictures if with_pictures else ""}
```"""


def _table(header: Sequence[str], rows: Any) -> str:
    # MLflow draws no line between columns: a wide space keeps them apart.
    lines = [header, *rows]
    cells = [[f"&emsp;{cell}" if place else cell for place, cell in enumerate(line)] for line in lines]
    cells.insert(1, ["---"] * len(header))
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in cells
    )
