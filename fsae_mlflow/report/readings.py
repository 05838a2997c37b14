"""Figure of readings: a row per feature, with its sentence, the numbers that support it, and faces that fire it."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from fsae_mlflow.errors import UserError
from fsae_mlflow.report import style
from fsae_mlflow.report.grid import Tile

N_ROWS, N_TOP, N_SAMPLED = 12, 8, 4

# Inches, from the left or downwards.
MARGIN, TEXT, BARS, BAR, FACE, STEP, GAP = 0.15, 3.5, 1.3, 0.70, 0.70, 0.75, 0.25
HEAD, ROW, FOOT = 1.0, 1.24, 0.62
FIRST_FACE = MARGIN + TEXT + BARS
FIRST_SAMPLED = FIRST_FACE + N_TOP * STEP + GAP
WIDTH = FIRST_SAMPLED + N_SAMPLED * STEP + MARGIN
CHARACTERS = 42
"""The longest line of a sentence, so that it ends before the bars."""

FOOTNOTE = """\
p: probability, if there were no relation, of what the other people (of a person: the other pictures) show. \
q: p corrected for the number of features (Benjamini and Hochberg).
strong: almost all of its top faces have the attribute, and clearly fewer of all faces. \
Shares of an attribute are those among the other people; \
of a person, of the strongest faces (20, or fewer where fewer fire it), of which at most 3 are drawn.
ρ: rank correlation of the activation with a property, −1 … 1. \
yaw: positive where the nose points to the right of the picture; |yaw|: how far a face is turned, to either side."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One feature's sentence and the numbers that support it.

    `kind`: what is read (an attribute, "identity", "pose", a property), so that a figure shows different ones. `share`
    and `base`: shares, 0…1, of the top faces and of all faces that have the attribute or are the person; nan for
    other readings. `p`, `q`: of the confirmation; nan where unread. `n_faces`, `n_people`: those that fire the feature.
    `rho`: rank correlations, −1…1, of the activation by property; those that are nan are left out.
    """

    feature: int
    sentence: str
    kind: str
    confirmed: bool
    strong: bool
    share: float = math.nan
    base: float = math.nan
    p: float = math.nan
    q: float = math.nan
    n_faces: int
    n_people: int
    rho: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class ReadingRow:
    """A reading with the faces that fire its feature most and faces sampled over its range, captioned by activation."""

    reading: Reading
    top: Sequence[Tile]
    sampled: Sequence[Tile]


def strongest(readings: Sequence[Reading], *, n: int = N_ROWS) -> list[Reading]:
    """The best confirmed reading of each kind, then the second best of each, and so on; without any confirmed reading,
    those of the features that fire on most faces.

    Strong readings come before others, a smaller p before a larger one, then a larger share − base.
    """
    confirmed = [one for one in readings if one.confirmed]
    if not confirmed:
        return sorted(readings, key=lambda one: -one.n_faces)[:n]
    by_kind: defaultdict[str, list[Reading]] = defaultdict(list)
    for one in sorted(confirmed, key=_strength):
        by_kind[one.kind].append(one)
    ranked = [(place, one) for same in by_kind.values() for place, one in enumerate(same)]
    return [one for _, one in sorted(ranked, key=lambda pair: (pair[0], _strength(pair[1])))][:n]


def _strength(one: Reading) -> tuple[bool, float, float]:
    lift = one.share - one.base
    return not one.strong, one.p, 0.0 if math.isnan(lift) else -lift


def write_readings(
    path: Path,
    rows: Sequence[ReadingRow],
    *,
    headline: str,
    n_confirmed: int,
    n_alive: int,
    n_found_on: int,
    n_confirmed_on: int,
) -> Path:
    """Draw the first 12 readings: sentence and numbers on the left, 8 top faces and 4 sampled faces on the right.

    `headline` is the title where `n_confirmed` of `n_alive` features, at least one, have a confirmed reading. Readings
    were found on `n_found_on` people, and confirmed on `n_confirmed_on` others.

    Raises: UserError without rows.
    """
    if not rows:
        raise UserError("features: there is no feature to draw; the SAE has none that fires.")
    rows = rows[:N_ROWS]
    with style.sheet(path, WIDTH, HEAD + ROW * len(rows) + FOOT) as axes:
        if n_confirmed:
            title = headline
            legend = (
                f"A confirmed reading was found on {n_found_on:,} people and holds on {n_confirmed_on:,} other people "
                "(an identity: on other pictures of the same person). "
                f"Below: {len(rows)} of the strongest, the best of each kind first."
            )
        else:
            title = "No reading was confirmed"
            legend = (
                f"Nothing that was found on {n_found_on:,} people holds on {n_confirmed_on:,} other people. "
                f"Below: the {len(rows)} of {n_alive:,} features that fire on most faces, unread."
            )
        _write(axes, MARGIN, 0.12, title, fontsize=13, fontweight="bold")
        _write(axes, MARGIN, 0.42, legend, fontsize=10)
        for left, heading in (
            (FIRST_FACE, "faces that fire it most, at most 3 of a person; below each, the activation"),
            (FIRST_SAMPLED, "sampled over its range of activation"),
        ):
            _write(axes, left, HEAD - 0.22, heading, fontsize=9, fontweight="bold")
        for place, row in enumerate(rows):
            top = HEAD + ROW * place
            axes.plot([MARGIN, WIDTH - MARGIN], [top, top], color=style.PALE, linewidth=0.8)
            _draw(axes, top + 0.08, row)
        _write(axes, MARGIN, HEAD + ROW * len(rows) + 0.1, FOOTNOTE, fontsize=8, color=style.GRAY)
    return path


def _draw(axes: Axes, top: float, row: ReadingRow) -> None:
    reading = row.reading
    _write(axes, MARGIN, top, f"Feature {reading.feature}{', strong' if reading.strong else ''}", color=style.GRAY)
    lines = wrap(reading.sentence, CHARACTERS, max_lines=3, placeholder=" …")
    _write(axes, MARGIN, top + 0.14, "\n".join(lines), fontsize=9.5, fontweight="bold")
    _write(axes, MARGIN, top + 0.2 + 0.165 * len(lines), "\n".join(_numbers(reading)))
    _bars(axes, top, reading)
    for first, tiles in ((FIRST_FACE, row.top[:N_TOP]), (FIRST_SAMPLED, row.sampled[:N_SAMPLED])):
        for place, tile in enumerate(tiles):
            left = first + STEP * place
            axes.imshow(tile.picture, extent=(left, left + FACE, top + FACE, top), interpolation="lanczos")
            _write(axes, left + FACE / 2, top + FACE + 0.03, tile.caption, ha="center")


def _numbers(reading: Reading) -> list[str]:
    people = f"{reading.n_people:,} {'person' if reading.n_people == 1 else 'people'}"
    lines = [f"fired by {reading.n_faces:,} faces of {people}"]
    if not math.isnan(reading.p):
        lines.append(f"p {_probability(reading.p)}, q {_probability(reading.q)}")
    known = _known(reading.rho)
    if known and not math.isnan(reading.share):
        lines.append("ρ: " + ", ".join(f"{name} {_signed(value)}" for name, value in known.items()))
    return lines


def _bars(axes: Axes, top: float, reading: Reading) -> None:
    left = MARGIN + TEXT
    if math.isnan(reading.share):
        known = _known(reading.rho)
        bars = [(f"ρ with {name}", _signed(value), 0.5, value / 2, style.GREEN) for name, value in known.items()]
    else:
        bars = [
            ("of its top faces", _percent(reading.share), 0.0, reading.share, style.BLUE),
            ("of all faces", _percent(reading.base), 0.0, reading.base, style.GRAY),
        ]
    for place, (label, number, start, length, color) in enumerate(bars[:3]):
        y = top + 0.36 * place
        axes.add_patch(Rectangle((left, y), BAR, 0.1, color=style.PALE))
        axes.add_patch(Rectangle((left + BAR * start, y), BAR * length, 0.1, color=color))
        _write(axes, left + BAR + 0.05, y - 0.02, number, color=color, fontweight="bold")
        _write(axes, left, y + 0.13, label)


def _known(rho: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in rho.items() if not math.isnan(value)}


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else f"{100 * share:.1g} %"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _probability(value: float) -> str:
    return "< 1e-300" if value < 1e-300 else f"= {value:.2g}"


def _write(axes: Axes, left: float, top: float, text: str, **look: Any) -> None:
    axes.text(left, top, text, **{"va": "top", "fontsize": 8, "parse_math": False} | look)
