"""Figure of an ablation: how verification changes where the features of a reading are left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsae_mlflow.report import style

N_SHOWN = 15
TITLES = ("TAR at FAR 1e-2", "TAR at FAR 1e-3", "EER")


@dataclass(frozen=True, kw_only=True)
class ReadingChange:
    """A reading of `n_features` features, and the change of each rate of TITLES without them, with its 95 % interval:
    shares, nan where there are too few pairs.
    """

    name: str
    n_features: int
    change: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def ablation_figure(changes: Sequence[ReadingChange], whole: Sequence[float], path: Path, *, n_pairs: int) -> Path:
    """Draw the 15 readings with the largest changes, those that cost most first; a panel for each rate that is known.

    `whole` are the rates with all features.
    """
    known = [column for column, rate in enumerate(whole) if np.isfinite(rate)]
    # A fall of TAR and a rise of EER are costs alike.
    costs = [max(((one.change[c], -one.change[c])[c < 2] for c in known), key=abs) for one in changes]
    largest = sorted(zip(costs, range(len(changes)), strict=True), key=lambda both: -abs(both[0]))[:N_SHOWN]
    shown = [changes[place] for _, place in sorted(largest, key=lambda both: -both[0])]
    with style.canvas(path, 3.2 + 2.9 * len(known), 1.5 + 0.34 * len(shown)) as figure:
        panels = figure.subplots(1, len(known), sharey=True, squeeze=False)[0]
        for column, axes in zip(known, panels, strict=True):
            worse = -1 if column < 2 else 1
            for place, one in enumerate(shown):
                value, low, high = (100 * values[column] for values in (one.change, one.low, one.high))
                sure = low > 0 or high < 0
                color = style.GRAY if not sure else style.VERMILION if worse * value > 0 else style.GREEN
                axes.plot([low, high], [place, place], color=color, linewidth=1.8)
                axes.plot([value], [place], "o", color=color, markersize=6)
            axes.axvline(0, color=style.INK, linewidth=0.8)
            axes.set_yticks(range(len(shown)), [_label(one) for one in shown])
            axes.set_ylim(len(shown) - 0.5, -0.5)
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0)
            axes.set_title(f"{TITLES[column]}\n{100 * whole[column]:.2f} % with all features")
            axes.set_xlabel("change, percentage points")
        figure.suptitle(
            f"What changes on {n_pairs:,} pairs where all features of a reading are left out, with 95 % interval; "
            f"{len(shown)} of {len(changes)} readings. Many features change more than few, whatever they mean.\n"
            "orange: worse without them   green: better   gray: not told apart from no change",
            fontsize=10,
            x=0.01,
            ha="left",
        )
    return path


def _label(one: ReadingChange) -> str:
    return f"{one.name.replace('_', ' ')} ({one.n_features:,} feature{'s' * (one.n_features != 1)})"
