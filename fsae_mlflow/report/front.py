"""Figure of SAEs by two metrics, with the front of those that no other one surpasses in both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from fsae_mlflow.report import style

LABEL_SIZE = 8
OFFSETS = [(0, 7), (5, 4), (5, -11), (-5, 4), (-5, -11), (8, -4), (-8, -4), (0, -16), (9, 9), (9, -16), (-9, -16)]
LOG_RATIO = 4


@dataclass(frozen=True, kw_only=True)
class Point:
    """One SAE: two metrics, whether no other SAE is better in both, and whether it is the best within the limit."""

    x: float
    y: float
    label: str
    on_front: bool
    best: bool


def front_figure(
    points: Sequence[Point],
    path: Path,
    *,
    across: str,
    up: str,
    max_l0: float | None = None,
    worst: float | None = None,
) -> Path:
    """Draw a point per SAE, gray where another is better in both metrics, the front with labels, and the best.

    `across` and `up` name the metrics. `max_l0` is the limit on the one across, `worst` the mean template's value of
    the other one: an SAE that is no better is of no use. An axis whose values span a factor of four is logarithmic. A
    label that would cover another one is left out.
    """
    with style.plot(path, 6.4, 4.4, grid="both") as axes:
        front = sorted((p for p in points if p.on_front), key=lambda p: p.x)
        others = [p for p in points if not p.on_front]
        if others:
            axes.scatter([p.x for p in others], [p.y for p in others], s=24, color=style.GRAY, label="other trials")
        axes.plot([p.x for p in front], [p.y for p in front], "o-", color=style.BLUE, linewidth=1.6, label="front")
        for best in (p for p in points if p.best):
            axes.plot(best.x, best.y, "*", color=style.VERMILION, markersize=16, label=f"best: trial {best.label}")
        if max_l0 is not None:
            axes.axvline(max_l0, color=style.INK, linestyle="--", linewidth=1.2, label=f"limit: {max_l0:g}")
        if worst is not None and any(p.y >= worst for p in points):
            axes.axhline(worst, color=style.GRAY, linestyle=":", linewidth=1.2, label="the mean template")
        for values, set_scale, axis in (
            ([p.x for p in points], axes.set_xscale, axes.xaxis),
            ([p.y for p in points], axes.set_yscale, axes.yaxis),
        ):
            if min(values) > 0 and max(values) > LOG_RATIO * min(values):
                set_scale("log")
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.set_title(f"{len(points)} trials, {len(front)} on the front")
        axes.legend(loc="best")
        _label(axes, front)
    return path


def _label(axes: Axes, points: Sequence[Point]) -> None:
    """Write the points' labels where no other label and no point is; leave out those that find no place."""
    axes.autoscale_view()
    pixels = axes.figure.dpi / 72
    places = [axes.transData.transform((p.x, p.y)) for p in points]
    radii = [(8 if point.best else 3) * pixels for point in points]
    taken = [Bbox.from_extents(x - r, y - r, x + r, y + r) for (x, y), r in zip(places, radii, strict=True)]
    for point, (x, y) in zip(points, places, strict=True):
        width, height = 0.65 * LABEL_SIZE * len(point.label) * pixels, LABEL_SIZE * pixels
        for dx, dy in OFFSETS:
            left = x + dx * pixels - (0 if dx > 0 else width if dx < 0 else width / 2)
            box = Bbox.from_bounds(left, y + dy * pixels, width, height)
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                axes.annotate(
                    point.label,
                    (point.x, point.y),
                    (dx, dy),
                    textcoords="offset points",
                    fontsize=LABEL_SIZE,
                    ha="left" if dx > 0 else "right" if dx < 0 else "center",
                )
                break
