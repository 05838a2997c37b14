"""The figures of an evaluation: accuracies, ROC curves, and densities with their clusters."""

from pathlib import Path

from fsae_mlflow.report import style
from fsae_mlflow.report.accuracy import Series, accuracy_figure, roc_figure
from fsae_mlflow.report.densities import density_histogram
from fsae_mlflow.verification.protocol import roc_curve
from fsae_mlflow.verification.tables import Evaluation, Row


def write_figures(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write table.png, roc.png and, where there is an SAE, density.png."""
    pairs = evaluation.pairs
    series = [_series(row, evaluation) for row in evaluation.rows]
    title = f"{len(pairs):,} pairs in {pairs.n_folds} folds: mean ± standard deviation over folds"
    paths = [
        accuracy_figure(series, folder / "table.png", title=title),
        roc_figure(series, folder / "roc.png", n_impostors=int((~pairs.genuine).sum())),
    ]
    if evaluation.density is not None and evaluation.clusters is not None:
        source = evaluation.density_source
        paths.append(density_histogram(evaluation.density, evaluation.clusters, folder / "density.png", source=source))
    return paths


def _series(row: Row, evaluation: Evaluation) -> Series:
    far, tar = roc_curve(row.distances, evaluation.pairs.genuine)
    color = style.COLORS.get(row.name, style.GRAY)
    return Series(label=row.label, color=color, accuracies=row.accuracy.accuracies, far=far, tar=tar, auc=row.auc)
