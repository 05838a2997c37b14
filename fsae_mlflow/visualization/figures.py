"""The figure of a visualization: figure 3 of the paper."""

from pathlib import Path

from PIL import Image

from fsae_mlflow.report.grid import GridRow, Tile, feature_grid
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.visualization.results import Visualization

TITLE = "Left: its top faces, at most 3 a person. Right: images optimized for it. Below: activation"


def write_grid(visualization: Visualization, templates: TemplateSet, path: Path) -> Path:
    """Draw a row per feature, with its activation under each picture (for optimized images: that of the saved file)."""
    return feature_grid(
        [_row(visualization, templates, feature) for feature in visualization.features], path, title=TITLE
    )


def _row(visualization: Visualization, templates: TemplateSet, feature: int) -> GridRow:
    rows, activations = (values[: visualization.n_top_faces] for values in visualization.activity.top_of(feature))
    faces = [
        Tile(picture=face, caption=f"{value:.3g}")
        for face, value in zip(templates.faces(rows), activations, strict=True)
    ]
    images = []
    for image in visualization.of(feature):
        with Image.open(image.path) as file:
            images.append(Tile(picture=file.convert("RGB"), caption=f"{image.assessment.activation:.3g}"))
    density = visualization.references[feature].density
    share = f"{density:.2%}" if density >= 1e-4 else f"{density:.1e}"
    return GridRow(heading=f"Feature {feature}, fired by {share} of the faces", faces=faces, images=images)
