"""Figure 3 of the paper: for each feature, the faces that fire it most and the images optimized to fire it."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from PIL import Image

from fsae_mlflow.errors import UserError
from fsae_mlflow.report import style

TILE = 0.95
GAP = 0.15
CHARACTERS_PER_INCH = 10
"""Of a title."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A picture and the caption under it, in a color of its own or in that of its row."""

    picture: Image.Image = field(repr=False)
    caption: str = ""
    color: str = ""


def captioned(
    pictures: Mapping[int, Image.Image], rows: Shaped[np.ndarray, " n"], activations: Shaped[np.ndarray, " n"]
) -> list[Tile]:
    """The faces of some rows, each with its activation under it."""
    numbers = zip(rows.tolist(), activations.tolist(), strict=True)
    return [Tile(picture=pictures[row], caption=f"{activation:.3g}") for row, activation in numbers]


def cut(strip: Image.Image, n: int) -> list[Image.Image]:
    """The `n` square pictures that lie side by side in a strip."""
    size = strip.height
    return [strip.crop((place * size, 0, (place + 1) * size, size)) for place in range(n)]


@dataclass(frozen=True, kw_only=True)
class GridRow:
    """One feature: a heading, its faces of highest activation, and its optimized images."""

    heading: str
    faces: Sequence[Tile]
    images: Sequence[Tile]


def feature_grid(rows: Sequence[GridRow], path: Path, *, title: str = "") -> Path:
    """Draw a row per feature, faces on the left and optimized images on the right.

    Raises: UserError without rows.
    """
    if not rows:
        raise UserError("features: there is no feature to draw; name at least one.")
    n_faces, n_images = (max(len(getattr(row, kind)) for row in rows) for kind in ("faces", "images"))
    width = max(TILE * (n_faces + n_images + GAP) + 0.3, 5.5)
    lines = textwrap.wrap(title, int(CHARACTERS_PER_INCH * width))
    with style.canvas(path, width, 1.36 * len(rows) + (0.2 * (len(lines) + 1) if lines else 0.0)) as figure:
        if lines:
            figure.suptitle("\n".join(lines), x=0.01, ha="left", fontweight="bold", fontsize=11)
        for row, part in zip(rows, figure.subfigures(len(rows), 1, squeeze=False)[:, 0], strict=True):
            _draw_row(part, row, n_faces, n_images)
    return path


def _draw_row(part: SubFigure, row: GridRow, n_faces: int, n_images: int) -> None:
    ratios = [1.0] * n_faces + [GAP] + [1.0] * n_images
    places = part.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
    for place in places:
        place.axis("off")
    for place, tile in zip(places, row.faces, strict=False):
        _show(place, tile, style.INK)
    for place, tile in zip(places[n_faces + 1 :], row.images, strict=False):
        _show(place, tile, style.GREEN)
    part.suptitle(row.heading, x=0.01, ha="left", fontsize=9)


def _show(axes: Axes, tile: Tile, color: str) -> None:
    axes.imshow(tile.picture, interpolation="lanczos")
    under = {"ha": "center", "va": "top", "fontsize": 8, "color": tile.color or color}
    axes.text(0.5, -0.03, tile.caption, transform=axes.transAxes, **under)
