"""Figure of SAEs' fraction of variance unexplained against their mean number of active features."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fsae_mlflow.report import style


@dataclass(frozen=True, kw_only=True)
class Point:
    """One SAE: its l0 and fvu, whether no other SAE is better in both, and whether it is the best within the limit."""

    l0: float
    fvu: float
    label: str
    on_front: bool
    best: bool


def front_figure(points: Sequence[Point], path: Path, *, max_l0: float) -> Path:
    """Draw a point per SAE on log axes, the Pareto front of fvu and L0, the limit on L0 and the best SAE within it."""
    with style.plot(path, 6.4, 4.4, grid="both") as axes:
        axes.scatter([p.l0 for p in points], [p.fvu for p in points], s=28, color=style.GRAY, label="trials")
        front = sorted((p for p in points if p.on_front), key=lambda p: p.l0)
        axes.plot([p.l0 for p in front], [p.fvu for p in front], "o-", color=style.BLUE, linewidth=1.6, label="front")
        for point in points:
            axes.annotate(point.label, (point.l0, point.fvu), (4, 4), textcoords="offset points", fontsize=8)
            if point.best:
                axes.plot(point.l0, point.fvu, "*", color=style.VERMILION, markersize=16, label="best within the limit")
        axes.axvline(max_l0, color=style.INK, linestyle="--", linewidth=1.2, label=f"limit on L0: {max_l0:g}")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("mean number of active features (L0), held-out people")
        axes.set_ylabel("fraction of variance unexplained")
        axes.set_title(f"{len(points)} trials over λ and expansion")
        axes.legend(loc="best")
    return path
