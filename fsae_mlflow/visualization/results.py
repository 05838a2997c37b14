"""The images of a visualization, their metrics, and the table of both."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsae_mlflow.features.activity.summary import Activity
from fsae_mlflow.visualization.assessment import Assessment, Reference


@dataclass(frozen=True, kw_only=True)
class OptimizedImage:
    """One saved image, its feature and seed, and how strongly it fires the feature."""

    feature: int
    seed: int
    path: Path
    assessment: Assessment


@dataclass(frozen=True, kw_only=True)
class Visualization:
    """The images of every feature, the feature on real faces, and the rows of the template set that fire it most."""

    features: list[int]
    references: dict[int, Reference]
    images: list[OptimizedImage]
    activity: Activity
    n_top_faces: int
    table: Path
    history: Path
    grid: Path

    def of(self, feature: int) -> list[OptimizedImage]:
        """The images made for one feature."""
        return [image for image in self.images if image.feature == feature]

    @property
    def metrics(self) -> dict[str, float]:
        """Means over all images, ready to log: how many fire their feature or rank it first, ratios to real faces."""
        found = [image.assessment for image in self.images]
        metrics = {
            "fires": float(np.mean([one.activation > 0 for one in found])),
            "rank_first": float(np.mean([one.rank == 1 for one in found])),
        }
        for name in ("to_maximum", "to_percentile", "norm_ratio"):
            metrics[f"mean_{name}"] = float(np.nanmean([getattr(one, name) for one in found]))
        return {name: value for name, value in metrics.items() if math.isfinite(value)}


def image_table(images: Sequence[OptimizedImage], references: dict[int, Reference]) -> list[Sequence[object]]:
    """A header, and a line per image: its file, its assessment, and its feature on real faces."""
    header = [
        "feature",
        "seed",
        "file",
        *(field.name for field in dataclasses.fields(Assessment)),
        *(field.name for field in dataclasses.fields(Reference)),
    ]
    lines = [
        [
            image.feature,
            image.seed,
            image.path.name,
            *dataclasses.astuple(image.assessment),
            *dataclasses.astuple(references[image.feature]),
        ]
        for image in images
    ]
    return [header, *lines]
