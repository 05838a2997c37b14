"""The picture of a visualization: figure 3 of the paper."""

from pathlib import Path

from PIL import Image

from fsae_mlflow.report.grid import GridRow, Tile, feature_grid
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.visualization.results import Visualization

TITLE = "Left: faces that fire the feature most. Right: images optimized for it. Below: activation"


def write_grid(visualization: Visualization, templates: TemplateSet, path: Path) -> Path:
    """Draw a row per feature; under each picture stands the feature's activation, of optimized images that of the saved
    file.
    """
    rows = [_row(visualization, templates, position) for position in range(len(visualization.features))]
    return feature_grid(rows, path, title=TITLE)


def _row(visualization: Visualization, templates: TemplateSet, position: int) -> GridRow:
    feature = visualization.features[position]
    top = visualization.top.firing(position, visualization.n_top_faces)
    activations = visualization.top.activations[position]
    faces = [
        Tile(picture=face, caption=f"{value:.3g}")
        for face, value in zip(templates.faces(top), activations, strict=False)
    ]
    images = []
    for image in visualization.of(feature):
        with Image.open(image.path) as file:
            images.append(Tile(picture=file.convert("RGB"), caption=f"{image.assessment.activation:.3g}"))
    density = visualization.references[feature].density
    share = f"{density:.2%}" if density >= 1e-4 else f"{density:.1e}"
    return GridRow(heading=f"Feature {feature}, fired by {share} of the faces", faces=faces, images=images)
