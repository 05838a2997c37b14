"""The paper's table 1: verification with original templates and with templates decoded from an SAE's features."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from fsae_mlflow.compute import choose_device
from fsae_mlflow.features.activity.summary import Activity
from fsae_mlflow.features.activity.survey import survey
from fsae_mlflow.features.clusters import clusters
from fsae_mlflow.progress import OnMetrics
from fsae_mlflow.provenance import require_same_recognizer
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.decoding import Decoded, decode_masked
from fsae_mlflow.verification.figures import write_figures
from fsae_mlflow.verification.pairs import RowPairs, find_rows, make_pairs, pairs_path, read_pairs
from fsae_mlflow.verification.protocol import (
    area_under_curve,
    cross_validate,
    equal_error_rate,
    squared_distances,
    tar_at_far,
)
from fsae_mlflow.verification.settings import EvaluateSettings
from fsae_mlflow.verification.tables import Evaluation, Row, write_tables


def evaluate(
    settings: EvaluateSettings,
    *,
    templates: TemplateSet,
    sae: SparseAutoencoder | None,
    output: Path,
    density_templates: TemplateSet | None = None,
    activity: Activity | None = None,
    on_metrics: OnMetrics | None = None,
) -> Evaluation:
    """Verify pairs of original templates, and of templates decoded from the high-density cluster, the low-density
    cluster and all features.

    The clusters come from densities: those of `activity` (from describe) if given, else counted on `density_templates`
    if given, else stored in the SAE by its training, else counted on `templates`. A decoded template is W_dec f + b_dec
    over the cluster's features alone, in the recognizer's units. All templates are compared after L2 normalization.
    Without an SAE only the original templates are verified.

    Writes to `output`: table.csv and table.md (a line per row), folds.csv (accuracy and threshold of every fold),
    pairs.csv (every pair with its distances; it can be read again as a pairs file), and the figures table.png, roc.png
    and density.png.

    Raises: UserError for pairs that do not fit the templates, where the templates' width differs from the SAE's d_in,
    and for templates of another recognizer than the SAE's, unless `force` is set.
    """
    pairs = choose_pairs(settings, templates)
    rows = pairs.rows
    original = templates.templates[rows]
    first, second = np.searchsorted(rows, pairs.first), np.searchsorted(rows, pairs.second)
    table = [_row("original", squared_distances(original[first], original[second]), pairs)]
    if sae is None:
        return _finished(Evaluation(rows=table, pairs=pairs), templates, output, on_metrics)
    others = [templates.origin] + ([density_templates.origin] if density_templates else [])
    require_same_recognizer(sae.origin, *others, force=settings.force)
    sae = sae.to(choose_device(settings.device))
    if activity is not None:
        density, source = activity.density, f"{activity.n_faces:,} templates by describe"
    else:
        density, source = _density(sae, templates, density_templates, settings.batch_size)
    split = clusters(density)
    masks = {"high": split.high, "low": split.low, "all": np.ones(sae.d_sae, dtype=bool)}
    for name, decoded in decode_masked(sae, original, masks, batch_size=settings.batch_size).items():
        distances = squared_distances(decoded.templates[first], decoded.templates[second])
        table.append(_row(name, distances, pairs, decoded))
    evaluation = Evaluation(rows=table, pairs=pairs, density=density, clusters=split, density_source=source)
    return _finished(evaluation, templates, output, on_metrics)


def _finished(evaluation: Evaluation, templates: TemplateSet, output: Path, on_metrics: OnMetrics | None) -> Evaluation:
    files = write_tables(evaluation, templates.image_ids, output) + write_figures(evaluation, output)
    if on_metrics is not None:
        on_metrics(evaluation.metrics, 0)
    return dataclasses.replace(evaluation, files=files)


def _row(
    name: str,
    distances: Float64[np.ndarray, " pairs"],
    pairs: RowPairs,
    decoded: Decoded | None = None,
) -> Row:
    of_features: dict[str, Any] = {}
    if decoded is not None:
        of_features = {
            "n_features": decoded.n_features,
            "l0": decoded.l0,
            "fvu": decoded.fidelity.fvu,
            "cosine": decoded.fidelity.cosine,
        }
    return Row(
        name=name,
        distances=distances,
        accuracy=cross_validate(distances, pairs.genuine, pairs.fold),
        tar_far_1e2=tar_at_far(distances, pairs.genuine, 1e-2),
        tar_far_1e3=tar_at_far(distances, pairs.genuine, 1e-3),
        eer=equal_error_rate(distances, pairs.genuine),
        auc=area_under_curve(distances, pairs.genuine),
        **of_features,
    )


def choose_pairs(settings: EvaluateSettings, templates: TemplateSet) -> RowPairs:
    """The pairs that the settings ask for, as rows of `templates`.

    Raises: UserError for a faulty pairs file, an image without a template, or too few identities to make pairs of.
    """
    if settings.pairs:
        path = pairs_path(settings.pairs)
        return find_rows(read_pairs(path), templates, source=path)
    return make_pairs(
        templates.image_ids,
        templates.identities,
        folds=settings.folds,
        pairs_per_fold=settings.pairs_per_fold,
        seed=settings.seed,
    )


def _density(
    sae: SparseAutoencoder, templates: TemplateSet, density_templates: TemplateSet | None, batch_size: int
) -> tuple[Float64[np.ndarray, " d_sae"], str]:
    """The densities that split the features into clusters, and which templates they were counted on."""
    if density_templates is not None:
        density = survey(sae, density_templates, batch_size=batch_size).activity.density
        return density, f"{len(density_templates):,} given templates"
    stored = sae.density.double().cpu().numpy()
    if stored.any():
        return stored, "the training templates"
    return survey(sae, templates, batch_size=batch_size).activity.density, f"the {len(templates):,} verified templates"
