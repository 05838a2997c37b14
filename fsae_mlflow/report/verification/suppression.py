"""Figure of erasing an attribute: what is left of it, and what that costs, method by method."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fsae_mlflow.report import style

Interval = tuple[float, float, float]
"""A value, 0…1, and its 95 % interval."""


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """One method: how well the attribute is still read (AUROC of a linear probe and of an MLP), and the accuracy."""

    label: str
    attribute: str
    linear: Interval
    mlp: Interval
    accuracy: Interval


def suppression_figure(erasures: Sequence[Erasure], path: Path, *, n_test: int) -> Path:
    """Draw a row for each method: on the left how well the attribute is still read, on the right the accuracy.

    With several attributes there is one pair of panels for each. AUROC was measured on `n_test` people.
    """
    attributes = list(dict.fromkeys(one.attribute for one in erasures))
    n_methods = len(erasures) // len(attributes)
    with style.canvas(path, 10.4, len(attributes) * (1.5 + 0.5 * n_methods)) as figure:
        panels = figure.subplots(len(attributes), 2, sharey="row", squeeze=False, width_ratios=(1.25, 1))
        for attribute, (left, right) in zip(attributes, panels, strict=True):
            name, rows = attribute.replace("_", " "), [one for one in erasures if one.attribute == attribute]
            for place, one in enumerate(rows):
                _point(left, place - 0.14, one.linear, color=style.BLUE, label="linear probe" if place == 0 else "")
                _point(left, place + 0.14, one.mlp, color=style.VERMILION, label="MLP probe" if place == 0 else "")
                _point(right, float(place), one.accuracy, color=style.INK)
                right.annotate(f"{one.accuracy[0]:.4f}", (1.02, place), xycoords=("axes fraction", "data"), va="center")
            left.axvline(0.5, color=style.GRAY, linestyle=":", linewidth=1.2)
            left.set_yticks(range(len(rows)), [fill(one.label, 34) for one in rows])
            left.set_ylim(len(rows) - 0.5, -0.5)
            left.set_xlim(0.35, 1.02)
            left.set_title(f"What is left of {name}")
            left.set_xlabel(f"AUROC on {n_test:,} other people (0.5: erased, 1: read without error)")
            left.legend(loc="upper center", bbox_to_anchor=(0.3, 1.0))
            right.set_title("What it costs")
            right.set_xlabel("verification accuracy")
            right.xaxis.set_major_locator(MaxNLocator(4))
            for axes in (left, right):
                axes.grid(axis="x")
                axes.tick_params(axis="y", length=0)
    return path


def _point(axes: Axes, place: float, interval: Interval, *, color: str, label: str = "") -> None:
    value, low, high = interval
    axes.plot([low, high], [place, place], color=color, linewidth=1.8)
    axes.plot([value], [place], "o", color=color, markersize=6, label=label or None)
