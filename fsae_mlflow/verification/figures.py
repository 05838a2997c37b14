"""The figures of an evaluation: accuracies, ROC curves, and densities with their clusters."""

from pathlib import Path

from fsae_mlflow.report import style
from fsae_mlflow.report.densities import density_histogram
from fsae_mlflow.report.verification.accuracy import Series, accuracy_figure, roc_figure
from fsae_mlflow.verification.protocol import roc_curve
from fsae_mlflow.verification.tables import Evaluation, Row

NO_POINT = ("mean",)
"""A row that table.png leaves out: its accuracy is chance, and the differences between the others would not be seen."""
NO_CURVE = ("random_high", "random_low", "pca_high", "pca_low", "mean")
"""Rows that roc.png leaves out, so that it stays legible."""


def write_figures(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write table.png, roc.png and, where there is an SAE, density.png."""
    pairs = evaluation.pairs
    points, curves = (
        [_series(row, evaluation) for row in evaluation.rows if row.name not in left_out]
        for left_out in (NO_POINT, NO_CURVE)
    )
    title = f"{len(pairs):,} pairs in {pairs.n_folds} folds: mean ± standard deviation over folds"
    paths = [
        accuracy_figure(points, folder / "table.png", title=title),
        roc_figure(curves, folder / "roc.png", n_impostors=int((~pairs.genuine).sum())),
    ]
    if evaluation.density is not None and evaluation.clusters is not None:
        source = evaluation.density_source
        paths.append(density_histogram(evaluation.density, evaluation.clusters, folder / "density.png", source=source))
    return paths


def _series(row: Row, evaluation: Evaluation) -> Series:
    far, tar = roc_curve(row.distances, evaluation.pairs.genuine)
    # A control has the color of its cluster, paler.
    color = style.COLORS.get(row.name) or style.pale(style.COLORS.get(row.name.partition("_")[2], style.GRAY))
    return Series(label=row.label, color=color, accuracies=row.accuracy.accuracies, far=far, tar=tar, auc=row.auc)
