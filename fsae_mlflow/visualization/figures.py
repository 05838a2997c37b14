"""The figures of a visualization: figure 3 of the paper, as one grid and as a sheet for each feature."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fsae_mlflow.features.table import Description
from fsae_mlflow.progress import progress
from fsae_mlflow.report import style
from fsae_mlflow.report.feature_sheet import N_COLUMNS, FeatureSheet, Row, write_sheet
from fsae_mlflow.report.grid import GridRow, Tile, captioned, cut, feature_grid
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.visualization.making.dial import POSITIONS
from fsae_mlflow.visualization.making.saved import read_record
from fsae_mlflow.visualization.results import OptimizedImage, Visualization, image_rows
from fsae_mlflow.visualization.settings import VisualizeSettings
from fsae_mlflow.visualization.targets import Target
from fsae_mlflow.visualization.verdict.verdict import RULE

GRID, SHEETS = "features.png", "sheets"
MOST_IN_GRID, MOST_SHEETS = 24, 300
TITLE = "Left: top faces, at most 3 a person. Right: optimized images, green if confirmed. Below: activation"
COMBINED = (
    "A combination. Its activation: the features as shares of their largest on real faces, the smallest of those to "
    "fire, minus the largest of those to keep silent."
)
Pictures = Mapping[int, Image.Image]


def write_figures(
    settings: VisualizeSettings,
    found: Visualization,
    templates: TemplateSet,
    description: Description | None,
    folder: Path,
    *,
    on_sheet: Callable[[Path, int], None] | None = None,
) -> list[Path]:
    """Draw features.png, with a row for each of the first 24 targets, and a sheet for each of the first 300.

    `on_sheet` gets the sheets of the first 24; their steps are the numbers of the features, where there is one each.
    """
    targets, n_top_faces = found.targets[:MOST_SHEETS], settings.n_top_faces
    rows = np.concatenate([_shown(found, target, n_top_faces)[0] for target in targets])
    spread = [found.of.activity.sampled.spread(found.of.row(target), N_COLUMNS)[0] for target in targets]
    pictures = dict(templates.faces_in_order(np.concatenate([rows, *spread]))) if len(rows) else {}
    grid = [_grid_row(found, target, pictures, n_top_faces) for target in targets[:MOST_IN_GRID]]
    written = [feature_grid(grid, folder / GRID, title=TITLE)]
    for number, target in enumerate(progress(targets, total=len(targets), label="sheets", unit="features")):
        sheet = _sheet(found, target, pictures, description, n_top_faces, templates)
        written.append(write_sheet(sheet, folder / SHEETS / f"{target.stem}.png"))
        if on_sheet is not None and number < MOST_IN_GRID:
            on_sheet(written[-1], number if any(one.combined for one in targets) else target.feature)
    return written


def image_table(found: Visualization, folder: Path) -> list[dict[str, Any]]:
    """The images and the controls as rows of one table, with numbers as people read them."""
    rows = image_rows(found.images, folder) + image_rows(found.controls, folder)
    return [
        {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in row.items()
            if name != "control"
        }
        | {"control": row.get("control", "")}
        for row in rows
    ]


def _shown(found: Visualization, target: Target, n: int) -> tuple[np.ndarray, np.ndarray]:
    rows, activations = found.of.activity.top_of(found.of.row(target))
    return rows[:n], activations[:n]


def _image(image: OptimizedImage, caption: str) -> Tile:
    with Image.open(image.path) as file:
        color = style.GREEN if image.verdict.confirmed else style.GRAY
        return Tile(picture=file.convert("RGB"), caption=caption, color=color)


def _grid_row(found: Visualization, target: Target, pictures: Pictures, n: int) -> GridRow:
    return GridRow(
        heading=f"Feature {target.name}, fired by {_share(found.references[target].density)} of the faces",
        faces=captioned(pictures, *_shown(found, target, n)),
        images=[
            _image(image, f"{image.verdict.activation:.3g}{' confirmed' if image.verdict.confirmed else ''}")
            for image in found.images_of(target)
        ],
    )


def _sheet(
    found: Visualization,
    target: Target,
    pictures: Pictures,
    description: Description | None,
    n: int,
    templates: TemplateSet,
) -> FeatureSheet:
    reference, images = found.references[target], found.images_of(target)
    rows = [
        Row(
            heading="Faces that fire it most, at most 3 of a person (below: activation)",
            tiles=captioned(pictures, *_shown(found, target, n)),
        ),
        Row(
            heading="Faces sampled from all that fire it, the strongest first",
            tiles=captioned(pictures, *found.of.activity.sampled.spread(found.of.row(target), N_COLUMNS)),
        ),
        Row(
            heading=f"Images optimized to fire it ({images[0].parametrization}), each with another seed",
            tiles=[_image(image, _caption(image)) for image in images],
            color=style.GREEN,
        ),
    ]
    if target in found.dials:
        rows.append(
            Row(
                heading="Dial: the mean face, moved along the feature by −3 to +3 standard deviations (SD)",
                tiles=_dial_tiles(found.dials[target]),
                color=style.GREEN,
            )
        )
    n_confirmed = sum(image.verdict.confirmed for image in images)
    return FeatureSheet(
        title=f"Feature {target.name}",
        reading=_reading(description, target),
        subtitle=f"{_share(reference.density)} of {len(templates):,} faces fire it. {found.about}",
        rows=rows,
        values=reference.values,
        shares=reference.shares,
        marks=[image.verdict.activation for image in images],
        closing=f"{n_confirmed} of {len(images)} images are confirmed. {RULE}",
    )


def _reading(description: Description | None, target: Target) -> str:
    if description is None:
        return "Its meaning was not looked for (give readings=)."
    if target.combined:
        return COMBINED
    sentence = str(description.columns["reading"][target.feature])
    return sentence[:1].upper() + sentence[1:]


def _caption(image: OptimizedImage) -> str:
    verdict = image.verdict
    second = "confirmed" if verdict.confirmed else "not confirmed"
    return f"{verdict.activation:.3g}\n{second}"


def _dial_tiles(path: Path) -> Sequence[Tile]:
    record = read_record(path)
    with Image.open(path) as file:
        strip = file.convert("RGB")
    captions = [f"{position:+d} SD".replace("-", "−") if position else "mean" for position in POSITIONS]
    return [
        Tile(picture=picture, caption=f"{caption}\n{activation:.3g}")
        for picture, caption, activation in zip(cut(strip, len(POSITIONS)), captions, record["activation"], strict=True)
    ]


def _share(share: float) -> str:
    return f"{share:.2%}" if share >= 1e-4 else f"{share:.1e}"
