"""The images of a visualization with their verdicts, and the tables of both.

    images.parquet      a row for each image: target, feature, seed, file, parametrization, and its verdict
    controls.parquet    the same of the controls, with the column control
    dials.parquet       a row for each picture of a dial: target, feature, file, place in it, step, reached, activation
    history.csv         a row for each image and recorded step: objective, activation, norm

What concerns all images (digests of SAE and templates, the rule) is in the Parquet metadata of images.parquet, as JSON
under the key fsae_mlflow.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.report.browser.images import DIALS, IMAGES, KEY, mostly_confirmed
from fsae_mlflow.report.tables import write_csv
from fsae_mlflow.visualization.dictionary import Dictionary
from fsae_mlflow.visualization.making.dial import POSITIONS
from fsae_mlflow.visualization.making.saved import read_record
from fsae_mlflow.visualization.targets import Target
from fsae_mlflow.visualization.verdict.firing import Reference
from fsae_mlflow.visualization.verdict.verdict import Verdict

CONTROLS, HISTORY = "controls.parquet", "history.csv"
MEANS = ("percentile", "to_maximum", "norm_ratio", "face_probability", "judge_auc", "probe_percentile")


@dataclass(frozen=True, kw_only=True)
class OptimizedImage:
    """One saved image and its verdict. A control's name is in `control`: "real", "other", "random" or "pixels".

    `history`: step, objective, activation and norm at each recorded step; a real face has none.
    """

    target: Target
    seed: int
    path: Path
    parametrization: str
    verdict: Verdict
    history: list[list[int | float]] = field(default_factory=list)
    control: str = ""


@dataclass(frozen=True, kw_only=True)
class Visualization:
    """The images of every target, those of the controls, the dials, and the features on real faces.

    `alike`: for each target the mean cosine of the templates of its images, 1 where all seeds end in one template.
    `about`: a sentence on the SAE and the recognizer. `folders`: where the pictures are.
    """

    of: Dictionary
    images: list[OptimizedImage]
    controls: list[OptimizedImage]
    dials: Mapping[Target, Path]
    alike: Mapping[Target, float]
    about: str
    folders: list[Path]
    files: list[Path] = field(default_factory=list)

    @property
    def targets(self) -> list[Target]:
        """What images were made for."""
        return self.of.targets

    @cached_property
    def references(self) -> dict[Target, Reference]:
        """Every target on real faces."""
        return {target: Reference.of(self.of.activity, self.of.row(target)) for target in self.targets}

    @cached_property
    def by_target(self) -> dict[Target, list[OptimizedImage]]:
        """The images of each target."""
        found: dict[Target, list[OptimizedImage]] = {}
        for image in self.images:
            found.setdefault(image.target, []).append(image)
        return found

    def images_of(self, target: Target) -> list[OptimizedImage]:
        """The images made for one target."""
        return self.by_target.get(target, [])

    def confirmed(self, target: Target) -> bool:
        """Whether more than half of a target's images are confirmed."""
        return mostly_confirmed([image.verdict.confirmed for image in self.images_of(target)])

    @property
    def headline(self) -> str:
        """How many features the images confirm."""
        n = sum(self.confirmed(target) for target in self.targets)
        return f"the images of {n:,} of {len(self.targets):,} features are confirmed"

    @property
    def metrics(self) -> dict[str, float]:
        """Means over all images, ready to log, those of a control under its name."""
        metrics = _means(self.images)
        metrics["features_confirmed"] = float(np.mean([self.confirmed(target) for target in self.targets]))
        alike = [value for value in self.alike.values() if math.isfinite(value)]
        metrics |= {"alike_between_seeds": float(np.mean(alike))} if alike else {}
        for control in dict.fromkeys(image.control for image in self.controls):
            of_control = _means([image for image in self.controls if image.control == control])
            metrics |= {f"controls/{control}/{name}": value for name, value in of_control.items()}
        return metrics

    def columns(self, d_sae: int) -> dict[str, np.ndarray]:
        """Columns of features.parquet: the number of images of each feature, how many are confirmed, and whether the
        feature is.
        """
        n, n_confirmed, confirmed = np.zeros(d_sae, np.int32), np.zeros(d_sae, np.int32), np.zeros(d_sae, bool)
        for target in self.targets:
            if not target.combined:
                found = [image.verdict.confirmed for image in self.images_of(target)]
                n[target.feature], n_confirmed[target.feature] = len(found), sum(found)
                confirmed[target.feature] = self.confirmed(target)
        return {"n_images": n, "n_images_confirmed": n_confirmed, "image_confirmed": confirmed}


def _means(images: Sequence[OptimizedImage]) -> dict[str, float]:
    found = [image.verdict for image in images]
    metrics = {
        "confirmed": float(np.mean([one.confirmed for one in found])),
        "fires": float(np.mean([one.activation > 0 for one in found])),
        "rank_first": float(np.mean([one.rank == 1 for one in found])),
    }
    for name in MEANS:
        values = np.array([getattr(one, name) for one in found])
        if np.isfinite(values).any():
            metrics[f"mean_{name}"] = float(np.nanmean(values))
    return metrics


def image_rows(images: Sequence[OptimizedImage], folder: Path) -> list[dict[str, Any]]:
    """A row for each image."""
    return [
        {
            **({"control": image.control} if image.control else {}),
            "target": image.target.name,
            "feature": image.target.feature,
            "seed": image.seed,
            "file": image.path.relative_to(folder).as_posix(),
            "parametrization": image.parametrization,
            **dataclasses.asdict(image.verdict),
        }
        for image in images
    ]


def write_tables(found: Visualization, folder: Path, *, about: Mapping[str, Any]) -> list[Path]:
    """Write the tables."""
    of_images = pa.Table.from_pylist(image_rows(found.images, folder))
    tables = {IMAGES: of_images.replace_schema_metadata({KEY: json.dumps(dict(about)).encode()})}
    if found.controls:
        tables[CONTROLS] = pa.Table.from_pylist(image_rows(found.controls, folder))
    if found.dials:
        tables[DIALS] = pa.Table.from_pylist(_dial_rows(found.dials, folder))
    for name, table in tables.items():
        with atomic_write(folder / name) as path:
            pq.write_table(table, path)
    lines = [[image.target.name, image.seed, *line] for image in found.images for line in image.history]
    header = ["target", "seed", "step", "objective", "activation", "norm"]
    return [*(folder / name for name in tables), write_csv(folder / HISTORY, [header, *lines])]


def mean_history(found: Visualization) -> dict[int, dict[str, float]]:
    """Objective, activation divided by the largest of real faces, and norm divided by theirs, at each recorded step:
    means over all images.
    """
    steps: dict[float, list[list[float]]] = {}
    for image in found.images:
        reference = found.references[image.target]
        for step, objective, activation, norm in image.history:
            largest = reference.maximum if reference.maximum > 0 else math.nan
            steps.setdefault(step, []).append([objective, activation / largest, norm / reference.mean_norm])
    names = ("objective", "to_maximum", "norm_ratio")
    return {
        int(step): {
            f"optimization/{name}": value
            for name, value in zip(names, np.nanmean(rows, axis=0).tolist(), strict=True)
            if math.isfinite(value)
        }
        for step, rows in sorted(steps.items())
    }


def _dial_rows(dials: Mapping[Target, Path], folder: Path) -> list[dict[str, Any]]:
    rows = []
    for target, path in dials.items():
        record, file = read_record(path), path.relative_to(folder).as_posix()
        for place, step in enumerate(POSITIONS):
            values = {name: record[name][place] for name in ("reached", "activation")}
            about = {"target": target.name, "feature": target.feature, "file": file}
            rows.append({**about, "place": place, "step": step, **values})
    return rows
