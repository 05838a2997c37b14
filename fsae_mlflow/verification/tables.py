"""The results of an evaluation: rows, metrics to log, and tables on disk."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from fsae_mlflow.features.clusters import Clusters
from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.report.tables import probability, write_csv
from fsae_mlflow.verification.pairs import COLUMNS, RowPairs
from fsae_mlflow.verification.protocol import CrossValidation, McNemar

LABELS = {
    "original": "Original templates",
    "high": "Decoded from the high-density cluster",
    "low": "Decoded from the low-density cluster",
    "all": "Decoded from all features",
}

HEADER = [
    "Setting",
    "Features",
    "L0",
    "Accuracy (μ ± σ)",
    "Standard error",
    "95 % interval",
    "TAR at FAR 1e-2",
    "TAR at FAR 1e-3",
    "EER",
    "AUC",
    "Lost / gained",
    "McNemar p",
    "FVU",
    "Cosine",
]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table.

    `distances`: squared Euclidean distance of each pair, 0…4. `against`: the original row's decisions and this row's.
    `l0`: mean number of the row's `n_features` (or components) that fire. `fvu` and `cosine`: as in metrics.py, over
    the images of the pairs. The original row has no features, fvu 0 and cosine 1. `title`: what the row is called in
    words, where LABELS does not have its name.
    """

    name: str
    title: str = ""
    distances: Float64[np.ndarray, " pairs"]
    accuracy: CrossValidation
    tar_far_1e2: float
    tar_far_1e3: float
    eer: float
    auc: float
    against: McNemar
    n_features: int = 0
    l0: float = 0.0
    fvu: float = 0.0
    cosine: float = 1.0

    @property
    def label(self) -> str:
        """The row's name in words."""
        return self.title or LABELS[self.name]

    @property
    def metrics(self) -> dict[str, float]:
        """All metrics of the row, by name."""
        low, high = self.accuracy.wilson
        return {
            "accuracy": self.accuracy.mean,
            "std": self.accuracy.std,
            "standard_error": self.accuracy.standard_error,
            "wilson_low": low,
            "wilson_high": high,
            "tar_at_far_1e-2": self.tar_far_1e2,
            "tar_at_far_1e-3": self.tar_far_1e3,
            "eer": self.eer,
            "auc": self.auc,
            "n_lost": float(self.against.n_lost),
            "n_gained": float(self.against.n_gained),
            "mcnemar_p": self.against.p,
            "n_features": float(self.n_features),
            "l0": self.l0,
            "fvu": self.fvu,
            "cosine": self.cosine,
        }


@runtime_checkable
class Part(Protocol):
    """Something that was measured beside the rows, and what it wrote."""

    @property
    def metrics(self) -> dict[str, float]: ...

    @property
    def files(self) -> list[Path]: ...


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The rows of the table, the pairs they were measured on, and the files written.

    `density`: share of the templates (`density_source`) that fire each feature; it splits the features into `clusters`.
    `parts`: what was measured beside the rows, with its own `metrics` and `files`. `notes`: sentences below the table.
    """

    rows: list[Row]
    pairs: RowPairs
    density: Float64[np.ndarray, " d_sae"] | None = None
    clusters: Clusters | None = None
    density_source: str = ""
    parts: Sequence[Part] = ()
    notes: Sequence[str] = ()
    files: list[Path] = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, float]:
        """All finite metrics, named `row/metric`, ready to log."""
        metrics = {f"{row.name}/{name}": value for row in self.rows for name, value in row.metrics.items()}
        metrics |= {"n_pairs": float(len(self.pairs)), "n_folds": float(self.pairs.n_folds)}
        if self.clusters is not None:
            metrics |= {
                "density_split": self.clusters.split,
                "clusters_separated": float(self.clusters.separated),
                "n_high": float(self.clusters.high.sum()),
                "n_low": float(self.clusters.low.sum()),
                "n_dead": float(self.clusters.n_dead),
            }
        for part in self.parts:
            metrics |= part.metrics
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    @property
    def headline(self) -> str:
        """The accuracy of original templates, and of those decoded from all features."""
        accuracy = {row.name: row.accuracy.mean for row in self.rows}
        decoded = f"; {accuracy['all']:.4f} when decoded from all features" if "all" in accuracy else ""
        return f"accuracy {accuracy['original']:.4f} with original templates{decoded}"


def loggable(name: str) -> str:
    """A name without the characters that a metric's name cannot have."""
    return re.sub(r"[^\w. -]", "_", name)


def markdown(evaluation: Evaluation) -> str:
    """The table in Markdown, with notes on how its columns are computed."""
    lines = [HEADER, ["---"] + ["---:"] * (len(HEADER) - 1), *(_cells(row) for row in evaluation.rows)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    pairs = evaluation.pairs
    notes = [
        f"{len(pairs):,} pairs in {pairs.n_folds} folds; σ over folds with divisor k; standard error σ/√k; "
        "Wilson interval over all pairs. Lost / gained: pairs that only the original templates, and only the row's, "
        "decide correctly, each fold at its own threshold; p of the exact McNemar test."
    ]
    if evaluation.clusters is not None:
        notes.append(
            f"Densities counted on {evaluation.density_source}; clusters split at {evaluation.clusters.split:.3g}."
        )
        if not evaluation.clusters.separated:
            notes.append("The densities have no valley; the split is Otsu's threshold, a convention.")
    return table + "\n\n" + " ".join([*notes, *evaluation.notes]) + "\n"


def _cells(row: Row) -> list[str]:
    low, high = row.accuracy.wilson
    decoded = row.name != "original"
    return [
        row.label,
        f"{row.n_features:,}" if decoded else "–",
        f"{row.l0:.1f}" if decoded else "–",
        f"{row.accuracy.mean:.4f} ± {row.accuracy.std:.4f}",
        f"{row.accuracy.standard_error:.4f}",
        f"{low:.4f} … {high:.4f}",
        *("too few pairs" if math.isnan(share) else f"{share:.4f}" for share in (row.tar_far_1e2, row.tar_far_1e3)),
        *(f"{value:.4f}" for value in (row.eer, row.auc)),
        f"{row.against.n_lost} / {row.against.n_gained}" if decoded else "–",
        probability(row.against.p) if decoded else "–",
        *(f"{value:.4f}" for value in (row.fvu, row.cosine)),
    ]


def write_tables(evaluation: Evaluation, image_ids: Sequence[str], folder: Path) -> list[Path]:
    """Write table.csv, table.md, folds.csv and pairs.csv.

    Distances in pairs.csv are squared Euclidean, 0…4, between L2-normalized templates.
    """
    rows, pairs = evaluation.rows, evaluation.pairs
    table = [["row", *rows[0].metrics], *([row.name, *row.metrics.values()] for row in rows)]
    header = ["fold", *(f"{metric}_{row.name}" for row in rows for metric in ("accuracy", "threshold"))]
    folds = np.column_stack(
        [column for row in rows for column in (row.accuracy.accuracies, row.accuracy.thresholds)]
    ).tolist()
    images = [(image_ids[first], image_ids[second]) for first, second in zip(pairs.first, pairs.second, strict=True)]
    distances = np.column_stack([row.distances for row in rows]).round(6).tolist()
    lines = zip(images, pairs.genuine.astype(int).tolist(), pairs.fold.tolist(), distances, strict=True)
    with atomic_write(folder / "table.md") as temporary:
        temporary.write_text(markdown(evaluation), encoding="utf-8")
    return [
        folder / "table.md",
        write_csv(folder / "table.csv", table),
        write_csv(folder / "folds.csv", [header, *([fold, *values] for fold, values in enumerate(folds))]),
        write_csv(
            folder / "pairs.csv",
            [
                [*COLUMNS, *(f"distance_{row.name}" for row in rows)],
                *([*both, truth, fold, *values] for both, truth, fold, values in lines),
            ],
        ),
    ]
