"""Figure of how fast the similarity falls when features are switched off, by the order in which they are."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from fsae_mlflow.report import style

COLORS = (style.VERMILION, style.BLUE, style.GREEN, style.GRAY)


def deletion_figure(
    panels: Mapping[str, Mapping[str, Float64[np.ndarray, " steps"]]],
    shares: Float64[np.ndarray, " steps"],
    path: Path,
    *,
    up_to: float,
) -> Path:
    """Draw a panel for each kind of pairs: the mean similarity by the share of features that are off, for each order.

    The area under a curve is taken up to the share `up_to`, which is shaded and says so.
    """
    with style.canvas(path, 5.2 * len(panels), 4.4) as figure:
        for axes, (title, curves) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            axes.axvspan(0, 100 * up_to, color="#F6F6F6", linewidth=0, label="where the area is measured")
            for (label, curve), color in zip(curves.items(), COLORS, strict=True):
                axes.plot(100 * shares, curve, color=color, linewidth=2, label=label)
            axes.set_title(title)
            axes.set_xlabel("% of the pair's features that are off")
            axes.set_xlim(0, 100)
            axes.grid(axis="y")
        figure.axes[0].set_ylabel("similarity of the decoded templates")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        handles, labels = [*handles[1:], handles[0]], [*labels[1:], labels[0]]
        figure.legend(handles, labels, loc="outside lower left", ncols=2)
    return path
