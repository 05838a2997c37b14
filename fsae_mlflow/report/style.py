"""The common look of all figures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from fsae_mlflow.files.atomic import atomic_write

# Okabe and Ito's palette, distinguishable with color blindness.
BLUE, GREEN, VERMILION, PURPLE = "#0072B2", "#009E73", "#D55E00", "#CC79A7"
INK, GRAY, PALE = "#222222", "#767676", "#E4E4E4"

COLORS = {"original": INK, "high": VERMILION, "low": BLUE, "all": GREEN, "without": PURPLE}
DPI = 160

LOOK: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRAY,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def pale(color: str) -> str:
    """The color halfway to white."""
    red, green, blue = ((1 + part) / 2 for part in to_rgb(color))
    return to_hex((red, green, blue))


@contextmanager
def canvas(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Give an empty figure of `width` × `height` inches, and write it to `path` as PNG when the block ends.

    Matplotlib's global state stays unchanged.
    """
    with rc_context(LOOK):
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png")


@contextmanager
def plot(path: Path, width: float, height: float, *, grid: Literal["x", "y", "both"] = "y") -> Iterator[Axes]:
    """Give the axes of a figure with one plot, with grid lines, and write it to `path` as PNG when the block ends."""
    with canvas(path, width, height) as figure:
        axes = figure.add_subplot()
        axes.grid(axis=grid)
        yield axes


@contextmanager
def sheet(path: Path, width: float, height: float) -> Iterator[Axes]:
    """Give axes that fill a figure, with inches from its top left corner as units, and write it to `path` as PNG when
    the block ends.
    """
    with canvas(path, width, height) as figure:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        yield axes
