"""The paper's table 1: verification with original templates and with templates decoded from an SAE's features."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from fsae_mlflow.features.activity.summary import Activity
from fsae_mlflow.features.activity.survey import survey
from fsae_mlflow.features.clusters import clusters
from fsae_mlflow.features.labels.attributes import read_attributes
from fsae_mlflow.features.suppression import select_features
from fsae_mlflow.features.table import Description
from fsae_mlflow.machine.compute import choose_device
from fsae_mlflow.progress import OnMetrics
from fsae_mlflow.provenance import require_same_recognizer
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.ablation.measurement import ablate
from fsae_mlflow.verification.audit.stage import audit
from fsae_mlflow.verification.chosen_pairs import choose_pairs
from fsae_mlflow.verification.controls import energies, feature_controls, label, template_controls, to_fit_on
from fsae_mlflow.verification.decoding import Decoded, decode_masked
from fsae_mlflow.verification.figures import write_figures
from fsae_mlflow.verification.pairs import RowPairs
from fsae_mlflow.verification.protocol import (
    McNemar,
    area_under_curve,
    cross_validate,
    equal_error_rate,
    squared_distances,
    tar_at_far,
)
from fsae_mlflow.verification.settings import CONTROLS, EvaluateSettings
from fsae_mlflow.verification.suppression.faces import faces_to_probe
from fsae_mlflow.verification.suppression.measurement import measure_suppression
from fsae_mlflow.verification.tables import LABELS, Evaluation, Part, Row, write_tables

ORDER = [
    "high",
    "low",
    "all",
    "without",
    *(f"{name}_{cluster}" for cluster in ("high", "low") for name in CONTROLS[:-1]),
    "mean",
]
"""The rows of the table after the original one."""


def evaluate(
    settings: EvaluateSettings,
    *,
    templates: TemplateSet,
    sae: SparseAutoencoder | None,
    output: Path,
    density_templates: TemplateSet | None = None,
    description: Description | None = None,
    labeled: TemplateSet | None = None,
    on_metrics: OnMetrics | None = None,
) -> Evaluation:
    """Verify pairs of original templates, and of templates decoded from the high-density cluster, the low-density
    cluster and all features.

    The clusters come from densities: those of `description` (by describe) if given, else counted on `density_templates`
    if given, else stored in the SAE by its training, else counted on `templates`. A decoded template is W_dec f + b_dec
    over the cluster's features alone, in the recognizer's units. All templates are compared after L2 normalization.
    Without an SAE only the original templates are verified. The controls that are asked for (controls.py) are rows too.

    With `without` there is one more row, and where attributes are given `measure_suppression` tells what is left of
    them on the `labeled` templates (the verified ones, if there are none); with `ablation` `ablate` leaves out every
    feature.

    Writes to `output`: table.csv and table.md (a line per row), folds.csv (accuracy and threshold of every fold),
    pairs.csv (every pair with its distances; it can be read again as a pairs file), and the figures table.png, roc.png
    and density.png.

    Raises: UserError for pairs that do not fit the templates, where the templates' width differs from the SAE's d_in,
    for features that `without` cannot mean, for an attribute named there that cannot be probed, and for templates of
    another recognizer than the SAE's, unless `force` is set.
    """
    pairs = choose_pairs(settings, templates)
    rows = pairs.rows
    original = templates.templates[rows]
    first, second = np.searchsorted(rows, pairs.first), np.searchsorted(rows, pairs.second)
    table = [_row("original", squared_distances(original[first], original[second]), pairs)]
    if sae is None:
        audits = audit(settings, table[0].distances, pairs, templates, output)
        return _finished(Evaluation(rows=table, pairs=pairs, parts=audits), templates, output, on_metrics)
    others = [one.origin for one in (templates, density_templates, labeled) if one is not None]
    require_same_recognizer(sae.origin, *others, force=settings.force)
    readings = None if description is None else description.columns
    left_out = select_features(settings.without, sae.d_sae, readings) if settings.without else None
    faces = None
    if left_out is not None and (settings.attributes or labeled is not None):
        of_faces = labeled or templates
        labels = read_attributes(settings.attributes, of_faces)
        faces = faces_to_probe(left_out, of_faces, labels, seed=settings.seed)
    sae = sae.to(choose_device(settings.device))
    density, source, activity = _seen(sae, templates, density_templates, description, settings.batch_size)
    split = clusters(density)
    masks = {"high": split.high, "low": split.low, "all": np.ones(sae.d_sae, dtype=bool)}
    notes = []
    if "energy" in settings.control_names:
        of = source if activity else f"the {len(templates):,} verified templates"
        notes.append(f"Energy (E[f²] ‖d‖²) measured on {of}.")
        activity = activity or survey(sae, templates, batch_size=settings.batch_size).activity
    if "random" in settings.control_names:
        notes.append(f"Random features drawn with seed {settings.seed}.")
    energy = energies(sae, activity) if activity else None
    masks |= feature_controls(settings.control_names, split, energy, seed=settings.seed)
    if left_out is not None:
        masks["without"] = ~left_out.features
    decoded = decode_masked(sae, original, masks, batch_size=settings.batch_size)
    if {"pca", "mean"} & set(settings.control_names):
        fitted, of = to_fit_on(templates, pairs, density_templates)
        notes.append(f"Components and mean fitted on {of}.")
        l0 = {cluster: decoded[cluster].l0 for cluster in ("high", "low")}
        decoded |= template_controls(settings.control_names, original, fitted, l0, normalize=sae.normalize)
    for name in sorted(decoded, key=ORDER.index):
        one = decoded[name]
        distances = squared_distances(one.templates[first], one.templates[second])
        if left_out is not None and name == "without":
            title = left_out.label
        else:
            title = "" if name in LABELS else label(name, one.n_features)
        table.append(_row(name, distances, pairs, one, title=title, original=table[0]))
    parts: list[Part] = []
    given = {"sae": sae, "templates": templates, "pairs": pairs, "output": output, "batch_size": settings.batch_size}
    if labeled is None:
        parts += audit(settings, table[0].distances, pairs, templates, output, sae=sae, readings=readings)
    if left_out is not None and faces is not None:
        parts.append(measure_suppression(left_out, faces=faces, alive=density > 0, seed=settings.seed, **given))
    if settings.ablation:
        parts.append(ablate(readings, **given))
    evaluation = Evaluation(
        rows=table,
        pairs=pairs,
        density=density,
        clusters=split,
        density_source=source,
        notes=notes,
        parts=parts,
    )
    return _finished(evaluation, templates, output, on_metrics)


def _finished(evaluation: Evaluation, templates: TemplateSet, output: Path, on_metrics: OnMetrics | None) -> Evaluation:
    files = write_tables(evaluation, templates.image_ids, output) + write_figures(evaluation, output)
    files += [path for part in evaluation.parts for path in part.files]
    if on_metrics is not None:
        on_metrics(evaluation.metrics, 0)
    return dataclasses.replace(evaluation, files=files)


def _row(
    name: str,
    distances: Float64[np.ndarray, " pairs"],
    pairs: RowPairs,
    decoded: Decoded | None = None,
    *,
    title: str = "",
    original: Row | None = None,
) -> Row:
    of_features: dict[str, Any] = {}
    if decoded is not None:
        of_features = {
            "n_features": decoded.n_features,
            "l0": decoded.l0,
            "fvu": decoded.fidelity.fvu,
            "cosine": decoded.fidelity.cosine,
        }
    accuracy = cross_validate(distances, pairs.genuine, pairs.fold)
    first = original.accuracy if original else accuracy
    return Row(
        name=name,
        title=title,
        distances=distances,
        accuracy=accuracy,
        tar_far_1e2=tar_at_far(distances, pairs.genuine, 1e-2),
        tar_far_1e3=tar_at_far(distances, pairs.genuine, 1e-3),
        eer=equal_error_rate(distances, pairs.genuine),
        auc=area_under_curve(distances, pairs.genuine),
        against=McNemar.of(first.correct, accuracy.correct),
        **of_features,
    )


def _seen(
    sae: SparseAutoencoder,
    templates: TemplateSet,
    density_templates: TemplateSet | None,
    description: Description | None,
    batch_size: int,
) -> tuple[Float64[np.ndarray, " d_sae"], str, Activity | None]:
    """The densities that split the features into clusters, which templates they were counted on, and, unless they are
    stored in the SAE, how these fire the features.
    """
    if description is not None:
        activity = description.activity
        source = f"{activity.n_faces:,} templates by describe"
    elif density_templates is not None:
        activity = survey(sae, density_templates, batch_size=batch_size).activity
        source = f"{len(density_templates):,} given templates"
    elif (stored := sae.density.double().cpu().numpy()).any():
        return stored, "the training templates", None
    else:
        activity = survey(sae, templates, batch_size=batch_size).activity
        source = f"the {len(templates):,} verified templates"
    return activity.density, source, activity
