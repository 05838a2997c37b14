"""Figure 3 of the paper, a sheet for a feature: its faces, the images optimized for it, its dial, its activations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from fsae_mlflow.report import style
from fsae_mlflow.report.grid import Tile

# Inches, from the left or downwards.
MARGIN, FACE, STEP, LINE = 0.25, 0.9, 0.97, 0.21
HEAD, SECTION, CAPTION, GAP = 0.34, 0.3, 0.2, 0.12
N_COLUMNS = 8
WIDTH = 2 * MARGIN + N_COLUMNS * STEP - (STEP - FACE)
HISTOGRAM, AXIS = 0.95, 0.5
CHARACTERS, SMALL_CHARACTERS = 74, 104


@dataclass(frozen=True, kw_only=True)
class Row:
    """Pictures under a heading, eight in a line."""

    heading: str
    tiles: Sequence[Tile]
    color: str = style.INK


@dataclass(frozen=True, kw_only=True)
class FeatureSheet:
    """Everything that is drawn. `values`: activations in ascending order; `shares`: the share of all faces, 0…1, at or
    below each; `marks`: activations of the optimized images.
    """

    title: str
    reading: str
    subtitle: str
    rows: Sequence[Row]
    values: Float[np.ndarray, " points"]
    shares: Float[np.ndarray, " points"]
    marks: Sequence[float]
    closing: str


def write_sheet(sheet: FeatureSheet, path: Path) -> Path:
    """Draw the sheet at print size."""
    reading, subtitle = wrap(sheet.reading, CHARACTERS), wrap(sheet.subtitle, SMALL_CHARACTERS)
    closing = wrap(sheet.closing, SMALL_CHARACTERS)
    lines = [max(1, -(-len(row.tiles) // N_COLUMNS)) for row in sheet.rows]
    pictures = sum(SECTION + n * (FACE + _caption(row) + GAP) for row, n in zip(sheet.rows, lines, strict=True))
    top = MARGIN + HEAD + LINE * len(reading) + 0.85 * LINE * len(subtitle) + GAP
    height = top + pictures + SECTION + HISTOGRAM + AXIS + 0.85 * LINE * len(closing) + MARGIN
    with style.sheet(path, WIDTH, height) as axes:
        _text(axes, MARGIN, MARGIN, sheet.title, fontsize=15, fontweight="bold")
        y = MARGIN + HEAD
        for line in reading:
            _text(axes, MARGIN, y, line, fontsize=11)
            y += LINE
        for line in subtitle:
            _text(axes, MARGIN, y, line, fontsize=8.5, color=style.GRAY)
            y += 0.85 * LINE
        y += GAP
        for row, n in zip(sheet.rows, lines, strict=True):
            _text(axes, MARGIN, y, row.heading, fontsize=9.5, fontweight="bold", color=row.color)
            y += SECTION
            for place, tile in enumerate(row.tiles):
                line, column = divmod(place, N_COLUMNS)
                _picture(axes, tile, MARGIN + column * STEP, y + line * (FACE + _caption(row) + GAP))
            y += n * (FACE + _caption(row) + GAP)
        _text(axes, MARGIN, y, "How strongly faces fire it", fontsize=9.5, fontweight="bold")
        _histogram(axes, sheet, y + SECTION)
        y += SECTION + HISTOGRAM + AXIS
        for line in closing:
            _text(axes, MARGIN, y, line, fontsize=8.5, color=style.GRAY)
            y += 0.85 * LINE
    return path


def _caption(row: Row) -> float:
    return CAPTION * max((tile.caption.count("\n") + 1 for tile in row.tiles if tile.caption), default=0) * 0.85


def _text(axes: Axes, x: float, y: float, words: str, **more: object) -> None:
    axes.text(x, y, words, va="top", **more)  # pyright: ignore[reportArgumentType]


def _picture(axes: Axes, tile: Tile, x: float, y: float) -> None:
    place = axes.inset_axes((x, y, FACE, FACE), transform=axes.transData)
    place.imshow(np.asarray(tile.picture), interpolation="lanczos")
    place.axis("off")
    axes.text(x + FACE / 2, y + FACE + 0.04, tile.caption, ha="center", va="top", fontsize=7.5, linespacing=1.25)


def _histogram(axes: Axes, sheet: FeatureSheet, y: float) -> None:
    """The share of all faces that fire the feature at least as hard as each activation, on a logarithmic axis."""
    place = axes.inset_axes((MARGIN + 0.75, y, WIDTH - 2 * MARGIN - 0.75, HISTOGRAM), transform=axes.transData)
    fires = sheet.values > 0
    above = 1 - sheet.shares
    x = np.concatenate([[0.0], sheet.values[fires]])
    smallest = max(above[above > 0].min(initial=1.0) / 2, 1e-6)
    heights = np.concatenate([[above[~fires].min(initial=1.0)], above[fires]]).clip(min=smallest)
    place.fill_between(x, heights, smallest, color=style.pale(style.BLUE), linewidth=0)
    place.plot(x, heights, color=style.BLUE, linewidth=1.2)
    place.set_yscale("log")
    place.set_ylim(smallest, 1)
    place.set_xlim(0, 1.06 * max([*x.tolist(), *sheet.marks, 1e-6]))
    for mark in sheet.marks:
        place.axvline(mark, color=style.GREEN, linewidth=1.2)
    place.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    place.tick_params(labelsize=7.5)
    place.set_xlabel("activation (green: the optimized images)", fontsize=8)
    place.set_ylabel("faces that fire it\nat least so hard", fontsize=7.5)
