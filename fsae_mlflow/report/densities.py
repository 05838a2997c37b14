"""Figure 2 of the paper: the distribution of the features' densities."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from fsae_mlflow.features.clusters import Clusters, clusters
from fsae_mlflow.report import style

BINS_PER_DECADE = 12
MOST_SHOWN = 12
"""Pictures of a training's series."""


def density_series(
    folder: Path, n_epochs: int, log: Callable[[Path, int], None]
) -> Callable[[Float64[np.ndarray, " d_sae"], int], None]:
    """What draws the densities after an epoch into `folder` and gives `log` the picture: of 12 epochs at most, evenly
    spread, the last among them.
    """
    every = -(-n_epochs // MOST_SHOWN)

    def draw(density: Float64[np.ndarray, " d_sae"], epoch: int) -> None:
        if (n_epochs - epoch) % every == 0:
            path = folder / f"epoch-{epoch:04}.png"
            for drawn in draw_densities(density, path, source=f"training faces, epoch {epoch}"):
                log(drawn, epoch)

    return draw


def draw_densities(density: Float64[np.ndarray, " d_sae"], path: Path, *, source: str) -> list[Path]:
    """Draw the histogram with the densities' own clusters; no picture where fewer than two features fire."""
    if (density > 0).sum() < 2:
        return []
    return [density_histogram(density, clusters(density), path, source=source)]


def density_histogram(
    density: Float64[np.ndarray, " d_sae"], clusters: Clusters, path: Path, *, source: str = ""
) -> Path:
    """Draw the histogram of the alive features' densities on a log axis, with a color per cluster and a line at their
    split; the title counts dead features.

    `density`: share of the templates, 0…1, that fire each feature. `source`: the templates it was counted on.
    """
    alive = density[density > 0]
    edges = _edges(alive, clusters.split)
    rule = f"split at {_share(clusters.split)}" + ("" if clusters.separated else " (no valley: Otsu's threshold)")
    with style.plot(path, 7.2, 3.9) as axes:
        for name in ("low", "high"):
            values = density[getattr(clusters, name)]
            axes.hist(
                values,
                bins=edges,
                color=style.COLORS[name],
                label=f"{name}-density cluster: {len(values):,}",
                edgecolor="white",
                linewidth=0.6,
            )
        axes.axvline(clusters.split, color=style.INK, linestyle="--", linewidth=1.2, label=rule)
        axes.set_xscale("log")
        axes.set_xlabel("density: share of faces that fire the feature" + (f"\ncounted on {source}" if source else ""))
        axes.set_ylabel("features")
        axes.set_title(
            f"{len(alive):,} of {len(density):,} features alive, {clusters.n_dead:,} dead, mean L0 {density.sum():.1f}"
        )
        axes.margins(y=0.12)
        axes.legend(loc="best")
    return path


def _edges(alive: Float64[np.ndarray, " n"], split: float) -> list[float]:
    """Bins of equal width in decades with an edge at the split, so that no bin has features of both clusters."""
    step = 1 / BINS_PER_DECADE
    below = np.ceil((np.log10(split) - np.log10(alive.min())) / step + 1e-9)
    above = np.ceil((np.log10(alive.max()) - np.log10(split)) / step + 1e-9)
    return (split * 10 ** (step * np.arange(-max(below, 1), max(above, 1) + 1))).tolist()


def _share(value: float) -> str:
    return f"{value:.2%}" if value >= 1e-4 else f"{value:.1e}"
