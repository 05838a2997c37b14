"""Figure of an explanation: two faces on the scale of similarity, and the features that bring them there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from PIL import Image

from fsae_mlflow.report import style

N_FACES = 6
"""Top faces shown of a feature."""

# Inches, from the left or downwards.
MARGIN, TEXT, BAR, NUMBER, FACE, STEP, GAP = 0.2, 3.5, 1.35, 0.8, 0.82, 0.88, 0.3
HEAD, PORTRAIT, SECTION, ROW, LINE = 0.95, 1.7, 0.42, 0.94, 0.24
FIRST_BAR = MARGIN + TEXT
FIRST_MAP = FIRST_BAR + BAR + NUMBER
FIRST_TOP = FIRST_MAP + 2 * STEP + GAP
WIDTH = FIRST_TOP + N_FACES * STEP + MARGIN
CHARACTERS, SMALL_CHARACTERS = 42, 56
"""The longest line of what is read first, and of the rest, so that they end before the bars."""
ADDS, TAKES = style.BLUE, style.VERMILION
N_BINS = 60
NOTHING = "no meaning was confirmed"
FOOTNOTE = """\
Bold: what was found of a feature on some people and confirmed on others. Orange: pixels that, blurred, weaken the \
feature on this face. A face fires a feature where its activation is above 0. Shaded above: the given pairs."""


@dataclass(frozen=True, kw_only=True)
class FeatureRow:
    """One feature: what it adds to the similarity, what is read of it first and then, where it looks on both faces
    (None: it does not fire there), and faces that fire it most.
    """

    value: float
    name: str
    reading: str
    more: str
    maps: tuple[Image.Image | None, Image.Image | None]
    top: Sequence[Image.Image]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Where the pair stands among others: the cosine of each given pair, and the threshold."""

    similarity: float
    threshold: float
    cosines: Float64[np.ndarray, " pairs"]
    genuine: Bool[np.ndarray, " pairs"]


@dataclass(frozen=True, kw_only=True)
class ExplanationSheet:
    """Everything that is drawn. `sums` are the parts of the similarity, of which the features shown are one, and sum to
    `scale.similarity`.

    `maps_heading` and `top_heading` are empty where there are no maps and no top faces.
    """

    title: str
    subtitle: str
    faces: tuple[Image.Image, Image.Image]
    names: tuple[str, str]
    scale: Scale
    adding: Sequence[FeatureRow]
    taking: Sequence[FeatureRow]
    sums: Sequence[tuple[str, float]]
    closing: str
    maps_heading: str
    top_heading: str


def draw_explanation(sheet: ExplanationSheet, path: Path) -> Path:
    """Draw the faces, the scale of similarity, a row for each feature, the remaining parts, and their sum."""
    n_rows, n_sections = len(sheet.adding) + len(sheet.taking), 1 + bool(sheet.taking)
    table = HEAD + PORTRAIT + 0.55
    sums = table + n_sections * SECTION + n_rows * ROW + 0.12
    closing = wrap(sheet.closing, 170)
    height = sums + (len(sheet.sums) + 1) * LINE + 0.25 + 0.19 * len(closing) + 0.4
    bars = Bars([row.value for row in (*sheet.adding, *sheet.taking)])
    with style.sheet(path, WIDTH, height) as axes:
        _write(axes, MARGIN, 0.14, sheet.title, fontsize=15, fontweight="bold")
        _write(axes, MARGIN, 0.47, "\n".join(wrap(sheet.subtitle, 150)), fontsize=10)
        for place, (face, name) in enumerate(zip(sheet.faces, sheet.names, strict=True)):
            left = MARGIN + place * (PORTRAIT + 0.15)
            _show(axes, face, left, HEAD, PORTRAIT)
            _write(axes, left, HEAD + PORTRAIT + 0.04, _short(name), color=style.GRAY, fontsize=8.5)
        _scale(axes, sheet.scale, left=MARGIN + 2 * PORTRAIT + 0.75, top=HEAD, right=WIDTH - 0.5)
        top = table
        for heading, rows in (
            ("What makes them similar", sheet.adding),
            ("What speaks against it", sheet.taking),
        ):
            if not rows:
                continue
            _write(axes, MARGIN, top + 0.08, heading, fontsize=11, fontweight="bold")
            for left, text in (
                (FIRST_BAR, "adds to the similarity"),
                (FIRST_MAP, sheet.maps_heading),
                (FIRST_TOP, sheet.top_heading),
            ):
                if top == table:
                    _write(axes, left, top + 0.12, text, color=style.GRAY, fontsize=8.5)
            top += SECTION
            for row in rows:
                _row(axes, top, row, bars)
                top += ROW
        axes.plot([MARGIN, WIDTH - MARGIN], [sums - 0.06] * 2, color=style.PALE, linewidth=0.8)
        for place, (label, value) in enumerate(sheet.sums):
            at = sums + place * LINE
            _write(axes, MARGIN, at, label, fontsize=9.5)
            _number(axes, at, value, style.INK)
        at = sums + len(sheet.sums) * LINE + 0.04
        axes.plot([MARGIN, FIRST_MAP - 0.15], [at - 0.03] * 2, color=style.INK, linewidth=0.8)
        _write(axes, MARGIN, at, "similarity: the sum of these", fontsize=9.5, fontweight="bold")
        _number(axes, at, sheet.scale.similarity, style.INK)
        _write(axes, MARGIN, at + LINE + 0.12, "\n".join(closing), fontsize=9.5)
        _write(axes, MARGIN, height - 0.25, FOOTNOTE, color=style.GRAY)
    return path


class Bars:
    """Bars that all have the same scale and zero."""

    def __init__(self, values: Sequence[float]) -> None:
        low, high = min([0.0, *values]), max([0.0, *values])
        self.unit = BAR / max(high - low, 1e-9)
        self.zero = FIRST_BAR - low * self.unit

    def draw(self, axes: Axes, top: float, height: float, value: float, color: str) -> None:
        """A bar from zero to `value`, and its number."""
        axes.add_patch(Rectangle((self.zero, top), value * self.unit, height, color=color, linewidth=0))
        axes.plot([self.zero] * 2, [top - 0.03, top + height + 0.03], color=style.INK, linewidth=0.8)
        _number(axes, top + height / 2, value, color, va="center")


def overlay(face: Image.Image, heat: Float[np.ndarray, "h w"]) -> Image.Image:
    """A face in gray with a map (0…1) laid over it in color."""
    gray = np.asarray(face.convert("L").convert("RGB"), np.float64) / 255
    strength = 0.8 * np.clip(heat, 0, 1)[..., None] ** 1.5
    mixed = gray * (1 - strength) + np.array(to_rgb(style.VERMILION)) * strength
    return Image.fromarray((255 * mixed).round().astype(np.uint8))


def _number(axes: Axes, top: float, value: float, color: str, **look: Any) -> None:
    text = f"{value:+.3f}".replace("-", "−")
    right = {"ha": "right", "fontsize": 9.5, "fontweight": "bold", "color": color}
    _write(axes, FIRST_MAP - 0.15, top, text, **right | look)


def _row(axes: Axes, top: float, row: FeatureRow, bars: Bars) -> None:
    lines = wrap(row.reading, CHARACTERS, max_lines=2, placeholder=" …")
    if not lines:
        _write(axes, MARGIN, top + 0.02, NOTHING, fontsize=9.5, color=style.GRAY)
    more = wrap(row.more, SMALL_CHARACTERS, max_lines=2, placeholder=" …")
    _write(axes, MARGIN, top + 0.02, "\n".join(lines), fontsize=9.5, fontweight="bold")
    _write(axes, MARGIN, top + 0.05 + 0.165 * max(len(lines), 1), "\n".join([row.name, *more]), color=style.GRAY)
    bars.draw(axes, top + 0.26, 0.26, row.value, ADDS if row.value > 0 else TAKES)
    for place, picture in enumerate(row.maps):
        left = FIRST_MAP + place * STEP
        if picture is not None:
            _show(axes, picture, left, top, FACE)
        elif any(row.maps):
            axes.add_patch(Rectangle((left, top), FACE, FACE, facecolor="#F4F4F4", linewidth=0))
            _write(axes, left + FACE / 2, top + FACE / 2, "does not\nfire", ha="center", va="center", color=style.GRAY)
    for place, picture in enumerate(row.top[:N_FACES]):
        _show(axes, picture, FIRST_TOP + place * STEP, top, FACE)


def _scale(axes: Axes, scale: Scale, *, left: float, top: float, right: float) -> None:
    """Histograms of the similarities of genuine and of impostor pairs, the threshold, and the pair."""
    low = min(-0.2, scale.similarity - 0.05, float(np.quantile(scale.cosines, 0.001)))
    unit = (right - left) / (1 - low)
    bottom, tall = top + PORTRAIT - 0.35, PORTRAIT - 0.85
    edges = np.linspace(low, 1, N_BINS + 1)
    for mask, color, label in (
        (~scale.genuine, style.GRAY, "two people"),
        (scale.genuine, style.GREEN, "one person"),
    ):
        counts = np.histogram(scale.cosines[mask], edges)[0]
        heights = tall * counts / max(counts.max(), 1)
        xs, ys = left + (np.repeat(edges, 2)[1:-1] - low) * unit, bottom - np.repeat(heights, 2)
        axes.fill_between(xs, bottom, ys, color=color, alpha=0.35, linewidth=0)
        middle = float(np.median(scale.cosines[mask]))
        _write(
            axes,
            left + (middle - low) * unit,
            bottom - tall - 0.04,
            f"pairs of {label}",
            ha="center",
            va="bottom",
            color=color,
            fontsize=9,
            bbox={"facecolor": "white", "linewidth": 0, "pad": 1},  # the pair's line does not cross it
        )
    axes.plot([left, right], [bottom] * 2, color=style.GRAY, linewidth=0.8)
    for tick in (np.arange(np.ceil(low * 5), 6) / 5).tolist():
        at = left + (tick - low) * unit
        axes.plot([at] * 2, [bottom, bottom + 0.04], color=style.GRAY, linewidth=0.8)
        _write(axes, at, bottom + 0.06, _plain(tick), ha="center", fontsize=8.5)
    _write(
        axes, right, bottom + 0.22, "similarity (cosine of the templates)", ha="right", color=style.GRAY, fontsize=8.5
    )
    at = left + (scale.threshold - low) * unit
    axes.plot([at] * 2, [bottom - tall - 0.02, bottom], color=style.INK, linewidth=1.2, linestyle=(0, (4, 2)))
    _write(axes, at, bottom + 0.22, f"threshold {_plain(scale.threshold, 3)}", ha="center", fontsize=8.5)
    at = left + (scale.similarity - low) * unit
    axes.plot([at] * 2, [top + 0.18, bottom], color=style.VERMILION, linewidth=2)
    _write(
        *(axes, at, top + 0.16, f"this pair: {_plain(scale.similarity, 3)}"),
        ha="center", va="bottom", fontsize=10, fontweight="bold", color=style.VERMILION,
    )  # fmt: skip


def _show(axes: Axes, picture: Image.Image, left: float, top: float, size: float) -> None:
    axes.imshow(picture, extent=(left, left + size, top + size, top), interpolation="lanczos")


def _short(name: str, most: int = 26) -> str:
    """The end of an image's id, without its folders where that is too long."""
    last = name.rsplit("/", 1)[-1] if len(name) > most else name
    return last if len(last) <= most else f"…{last[1 - most :]}"


def _plain(value: float, digits: int = 1) -> str:
    return f"{value + 0.0:.{digits}f}".replace("-", "−")


def _write(axes: Axes, left: float, top: float, text: str, **look: Any) -> None:
    axes.text(left, top, text, **{"va": "top", "fontsize": 8, "parse_math": False} | look)
