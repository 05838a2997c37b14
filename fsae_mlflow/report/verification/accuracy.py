"""Figures of verification accuracy and ROC curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import numpy as np
from jaxtyping import Float64

from fsae_mlflow.report import style

SMALLEST_FAR = 1e-4
CHARACTERS = 40
"""The longest line of a label."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One row of a verification table: its accuracy in every fold, its ROC curve (far and tar, 0…1) and color."""

    label: str
    color: str
    accuracies: Float64[np.ndarray, " folds"]
    far: Float64[np.ndarray, " points"]
    tar: Float64[np.ndarray, " points"]
    auc: float


def accuracy_figure(series: Sequence[Series], path: Path, *, title: str) -> Path:
    """Draw each mean accuracy with its standard deviation (ddof 0) over folds, and every fold as a pale point."""
    lowest = min(float(one.accuracies.min()) for one in series)
    with style.plot(path, 7.2, 1.0 + 0.62 * len(series), grid="x") as axes:
        for place, one in enumerate(series):
            mean, std = float(one.accuracies.mean()), float(one.accuracies.std())
            offsets = np.linspace(-0.22, 0.22, len(one.accuracies))
            axes.scatter(one.accuracies, place + offsets, s=12, color=one.color, alpha=0.45, linewidths=0)
            axes.errorbar(mean, place, xerr=std, fmt="o", color=one.color, markersize=7, capsize=4, linewidth=1.8)
            at = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 9, "annotation_clip": False}
            axes.annotate(f"{mean:.4f} ± {std:.4f}", (1.02, place), **at)
        axes.set_yticks(range(len(series)), ["\n".join(wrap(one.label, CHARACTERS)) for one in series])
        axes.set_ylim(len(series) - 0.5, -0.5)
        axes.set_xlim(lowest - 0.03 * (1 - lowest) - 0.001, 1 + 0.03 * (1 - lowest))
        axes.set_xlabel("verification accuracy (0.5 is chance)")
        # Labels may be longer than the axes are wide: the title begins at the figure's edge.
        axes.figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        axes.tick_params(axis="y", length=0)
    return path


def roc_figure(series: Sequence[Series], path: Path, *, n_impostors: int) -> Path:
    """Draw ROC curves with FAR on a log axis that begins at one of `n_impostors` pairs, or at 1e-4."""
    smallest = max(SMALLEST_FAR, 1 / n_impostors)
    with style.plot(path, 6.4, 5.2, grid="both") as axes:
        for one in series:
            far = np.maximum(one.far, smallest / 10)
            label = f"{one.label} (AUC {one.auc:.4f})"
            axes.step(far, one.tar, where="post", color=one.color, linewidth=1.8, label=label)
        chance = np.geomspace(smallest, 1, 100)
        axes.plot(chance, chance, color=style.GRAY, linestyle=":", linewidth=1.2, label="Chance")
        axes.set_xscale("log")
        axes.set_xlim(smallest, 1)
        axes.set_ylim(0, 1.01)
        axes.set_xlabel("FAR: share of impostor pairs accepted")
        axes.set_ylabel("TAR: share of genuine pairs accepted")
        axes.figure.legend(loc="outside lower left")
    return path
