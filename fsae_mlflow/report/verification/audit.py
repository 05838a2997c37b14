"""Figure of an audit: the error rates of groups of faces, with intervals, around those of all pairs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from fsae_mlflow.report import style

N_LINES = 15
HAS, LACKS = style.VERMILION, style.BLUE


@dataclass(frozen=True)
class Share:
    """A share, 0…1, and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class AuditLine:
    """The rates of faces that have an attribute, and of those that lack it; in words where there is none to give."""

    attribute: str
    fmr: tuple[Share | str, Share | str]
    fnmr: tuple[Share | str, Share | str]

    def distance(self, fmr: float, fnmr: float) -> float:
        """The largest difference of a rate from that of all pairs, relative to it; −1 where no rate is given."""
        known = [
            abs(one.value - overall) / overall
            for pair, overall in ((self.fmr, fmr), (self.fnmr, fnmr))
            for one in pair
            if isinstance(one, Share) and overall > 0
        ]
        return max(known, default=-1.0)


def audit_figure(lines: Sequence[AuditLine], path: Path, *, fmr: float, fnmr: float, far: float) -> Path:
    """Draw false match and false non-match rates of the 15 attributes that differ most, around the rates of all pairs.

    `fmr` is nan where it cannot be given.
    """
    shown = most_different(lines, fmr=fmr, fnmr=fnmr)
    with style.canvas(path, 10.0, 1.9 + 0.42 * len(shown)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        _panel(left, [line.fmr for line in shown], fmr, "False matches: share of impostor pairs accepted")
        _panel(right, [line.fnmr for line in shown], fnmr, "False non-matches: share of genuine pairs refused")
        left.set_yticks(range(len(shown)), [line.attribute for line in shown])
        left.set_ylim(len(shown) - 0.5, -0.5)
        for axes in (left, right):
            axes.tick_params(axis="y", length=0)
        some = f"the {len(shown)} of {len(lines)} attributes that differ most" if len(shown) < len(lines) else ""
        title = f"Errors at one threshold (FAR {far:g}) by what both faces have or lack"
        figure.suptitle(title + (f": {some}" if some else ""), x=0.01, ha="left", fontsize=11, fontweight="bold")
        marks = [
            left.scatter([], [], s=36, color=HAS, label="both faces have it (95 % interval)"),
            left.scatter(
                [], [], s=36, facecolors="white", edgecolors=LACKS, linewidths=1.6, label="both faces lack it"
            ),
            left.plot([], [], color=style.GRAY, linestyle="--", label="all pairs")[0],
        ]
        figure.legend(handles=marks, loc="outside lower left", ncols=3)
    return path


def most_different(lines: Sequence[AuditLine], *, fmr: float, fnmr: float) -> list[AuditLine]:
    """The 15 attributes whose groups differ most from all pairs, the largest difference first."""
    return sorted(lines, key=lambda line: -line.distance(fmr, fnmr))[:N_LINES]


def _panel(axes: Axes, rates: Sequence[tuple[Share | str, Share | str]], overall: float, label: str) -> None:
    axes.grid(axis="x")
    if not math.isnan(overall):
        axes.axvline(overall, color=style.GRAY, linestyle="--", linewidth=1.2)
    for place, pair in enumerate(rates):
        axes.axhline(place + 0.5, color=style.PALE, linewidth=0.8)
        for one, offset, color in zip(pair, (-0.17, 0.17), (HAS, LACKS), strict=True):
            if isinstance(one, str):
                at = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 8}
                axes.annotate(one, (0.01, place + offset), color=color, **at)
                continue
            axes.plot([one.low, one.high], [place + offset] * 2, color=color, linewidth=1.6)
            inside = color if color == HAS else "white"
            look = {"facecolors": inside, "edgecolors": color, "linewidths": 1.6, "zorder": 3, "clip_on": False}
            axes.scatter(one.value, place + offset, s=36, **look)
    known = [one.high for pair in rates for one in pair if isinstance(one, Share)]
    axes.set_xlim(0, 1.05 * max([*known, overall if not math.isnan(overall) else 0, 1e-6]))
    axes.set_xlabel(label)
