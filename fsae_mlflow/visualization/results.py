"""What a visualization made and measured, and its tables."""

import csv
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsae_mlflow.atomic import atomic_write
from fsae_mlflow.features.top_faces import TopRows
from fsae_mlflow.visualization.assessment import Assessment, Reference


@dataclass(frozen=True, kw_only=True)
class OptimizedImage:
    """One saved image, the feature and seed it was made for, and how well it fires."""

    feature: int
    seed: int
    path: Path
    assessment: Assessment


@dataclass(frozen=True, kw_only=True)
class Visualization:
    """Images of every feature, its figures on real faces, and the rows of the template set that fire it most;
    features[i] is top.features[i].
    """

    features: list[int]
    references: dict[int, Reference]
    images: list[OptimizedImage]
    top: TopRows
    n_top_faces: int
    table: Path
    history: Path
    grid: Path

    def of(self, feature: int) -> list[OptimizedImage]:
        """The images made for one feature."""
        return [image for image in self.images if image.feature == feature]

    @property
    def metrics(self) -> dict[str, float]:
        """Means over all images, ready to log: the share that fires its feature, ratios to real faces, rank, norm."""
        found = [image.assessment for image in self.images]
        numbers = {
            "fires": float(np.mean([one.activation > 0 for one in found])),
            "rank_first": float(np.mean([one.rank == 1 for one in found])),
        }
        for name in ("to_maximum", "to_percentile", "norm_ratio"):
            numbers[f"mean_{name}"] = float(np.nanmean([getattr(one, name) for one in found]))
        return {name: value for name, value in numbers.items() if math.isfinite(value)}


def image_table(images: Sequence[OptimizedImage], references: dict[int, Reference]) -> list[Sequence[object]]:
    """A header and a line per image: where it is, how it fires, and its feature on real faces."""
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


def write_csv(path: Path, lines: Sequence[Sequence[object]]) -> Path:
    """Write lines of values as CSV."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return path
