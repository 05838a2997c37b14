"""The paper's table 1: verification with original templates and with what an SAE keeps of them."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float64

from fsae_mlflow.compute import choose_device
from fsae_mlflow.features.density import clusters, densities
from fsae_mlflow.progress import OnMetrics, progress
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.figures import write_figures
from fsae_mlflow.verification.pairs import RowPairs, find_rows, make_pairs, read_pairs
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
    on_metrics: OnMetrics | None = None,
) -> Evaluation:
    """Verify pairs of `templates` as they are and decoded from the high-density cluster, the low-density cluster and
    all features.

    The clusters come from densities on the SAE's training set: counted on `density_templates` where given, else those
    stored in the SAE, else (an SAE that never kept any) counted on `templates`. A decoded template is W_dec f + b_dec
    over the cluster's features alone, its scale undone; it is compared, like every template, after L2 normalization.
    Without an SAE only the first row is measured.

    Writes to `output` table.csv and table.md (a line per row), folds.csv (accuracy and threshold of every fold),
    pairs.csv (every pair with its distances; it can be read again as a pairs file), and table.png, roc.png and
    density.png.

    Raises: ValueError for pairs that do not fit the templates, or templates as wide as no input of the SAE.
    """
    pairs = choose_pairs(settings, templates)
    rows = pairs.rows
    original = templates.templates[rows]
    first, second = np.searchsorted(rows, pairs.first), np.searchsorted(rows, pairs.second)
    table = [_row("original", squared_distances(original[first], original[second]), pairs)]
    if sae is None:
        return _finished(Evaluation(rows=table, pairs=pairs), templates, output, on_metrics)
    sae = sae.to(choose_device(settings.device))
    density, source = _density(sae, templates, density_templates, settings.batch_size)
    split = clusters(density)
    masks = {"high": split.high, "low": split.low, "all": np.ones(sae.d_sae, dtype=bool)}
    decoded, l0 = decode_masked(sae, original, masks, batch_size=settings.batch_size)
    target = decoding_target(sae, original)
    for name, mask in masks.items():
        x_hat = decoded[name]
        distances = squared_distances(x_hat[first], x_hat[second])
        fvu, cosine = fraction_of_variance_unexplained(target, x_hat), mean_cosine(target, x_hat)
        table.append(_row(name, distances, pairs, n_features=int(mask.sum()), l0=l0[name], fvu=fvu, cosine=cosine))
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
    *,
    n_features: int = 0,
    l0: float = 0.0,
    fvu: float = 0.0,
    cosine: float = 1.0,
) -> Row:
    return Row(
        name=name,
        distances=distances,
        accuracy=cross_validate(distances, pairs.genuine, pairs.fold),
        tar_far_1e2=tar_at_far(distances, pairs.genuine, 1e-2),
        tar_far_1e3=tar_at_far(distances, pairs.genuine, 1e-3),
        eer=equal_error_rate(distances, pairs.genuine),
        auc=area_under_curve(distances, pairs.genuine),
        n_features=n_features,
        l0=l0,
        fvu=fvu,
        cosine=cosine,
    )


def choose_pairs(settings: EvaluateSettings, templates: TemplateSet) -> RowPairs:
    """The pairs that the settings ask for, as rows of `templates`.

    Raises: ValueError for a faulty pairs file, an image without a template, or too few identities to make pairs of.
    """
    if settings.pairs:
        path = Path(settings.pairs.removeprefix("lfw:"))
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
    if density_templates is not None:
        return densities(
            sae, density_templates.templates, batch_size=batch_size
        ), f"{len(density_templates):,} given templates"
    stored = sae.density.double().cpu().numpy()
    if stored.any():
        return stored, "the training templates"
    return densities(
        sae, templates.templates, batch_size=batch_size
    ), f"the {len(templates):,} templates that are verified"


def decode_masked(
    sae: SparseAutoencoder, templates: np.ndarray, masks: dict[str, Bool[np.ndarray, " d_sae"]], *, batch_size: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Decode raw templates from each mask's features alone (b_dec stays), and the mean number of them that fire."""
    chosen = {name: torch.from_numpy(mask).to(sae.W_dec.device) for name, mask in masks.items()}
    decoded: dict[str, list[np.ndarray]] = {name: [] for name in masks}
    fired = dict.fromkeys(masks, 0)
    batches = range(0, len(templates), batch_size)
    for start in progress(batches, total=len(batches), label="evaluate", unit="batches"):
        with torch.no_grad():
            features = sae.encode(torch.from_numpy(templates[start : start + batch_size]).to(sae.W_dec.device))
            for name, mask in chosen.items():
                kept = features * mask
                fired[name] += int((kept > 0).sum())
                decoded[name].append(sae.decode(kept).cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in decoded.items()}, {
        name: count / len(templates) for name, count in fired.items()
    }


def decoding_target(sae: SparseAutoencoder, templates: np.ndarray) -> np.ndarray:
    """What a perfect SAE would decode raw templates to: the templates, of unit length where the SAE normalizes them."""
    with torch.no_grad():
        scaled = sae.scaled(torch.from_numpy(templates).to(sae.W_dec.device))
        return (scaled / sae.scale + sae.center).cpu().numpy()


def fraction_of_variance_unexplained(x: np.ndarray, x_hat: np.ndarray) -> float:
    """Σ‖x − x̂‖² / Σ‖x − mean(x)‖²: 0 exact, 1 no better than the mean."""
    x, x_hat = x.astype(np.float64), x_hat.astype(np.float64)
    return float(np.square(x - x_hat).sum() / np.square(x - x.mean(axis=0)).sum())


def mean_cosine(x: np.ndarray, x_hat: np.ndarray) -> float:
    """Mean cosine, −1…1, between each template and its estimate."""
    x, x_hat = x.astype(np.float64), x_hat.astype(np.float64)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(x_hat, axis=1)
    return float(((x * x_hat).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)).mean())
