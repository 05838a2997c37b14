"""What leaving out features leaves of an attribute, and what it costs, beside the erasers."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64

from fsae_mlflow.features.suppression import Selection
from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.progress import progress
from fsae_mlflow.report.tables import write_csv
from fsae_mlflow.report.verification.suppression import Erasure, suppression_figure
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.decoding import decode_masked
from fsae_mlflow.verification.pairs import RowPairs
from fsae_mlflow.verification.protocol import (
    CrossValidation,
    cross_validate,
    equal_error_rate,
    squared_distances,
    tar_at_far,
)
from fsae_mlflow.verification.suppression.erasers import leace, mean_difference
from fsae_mlflow.verification.suppression.faces import Faces
from fsae_mlflow.verification.suppression.probes import Auroc, Whitened, auroc
from fsae_mlflow.verification.tables import loggable

HEADER = [
    "Attribute",
    "Templates",
    "AUROC, linear",
    "AUROC, MLP",
    "Others",
    "Accuracy",
    "TAR at FAR 1e-3",
    "EER",
]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One method and attribute: how well the attribute can still be read, and how well faces can still be verified.

    `others`: mean AUROC of linear probes of the other attributes; nan where there is none.
    """

    method: str
    label: str
    attribute: str
    linear: Auroc
    mlp: Auroc
    others: float
    accuracy: CrossValidation
    tar_far_1e3: float
    eer: float

    @property
    def metrics(self) -> dict[str, float]:
        """All numbers of the line, by name."""
        low, high = self.accuracy.wilson
        return {
            "auroc_linear": self.linear.value,
            "auroc_linear_low": self.linear.low,
            "auroc_linear_high": self.linear.high,
            "auroc_mlp": self.mlp.value,
            "auroc_mlp_low": self.mlp.low,
            "auroc_mlp_high": self.mlp.high,
            "auroc_others": self.others,
            "accuracy": self.accuracy.mean,
            "std": self.accuracy.std,
            "wilson_low": low,
            "wilson_high": high,
            "tar_at_far_1e-3": self.tar_far_1e3,
            "eer": self.eer,
        }


@dataclass(frozen=True, kw_only=True)
class Suppression:
    """The lines of the measurement, on how many people probes were trained and tested, and the files written."""

    lines: list[Line]
    n_people: tuple[int, int]
    note: str
    files: list[Path] = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, float]:
        """All finite numbers, named `without/attribute/method/number`."""
        named = {
            f"without/{loggable(line.attribute)}/{line.method}/{name}": value
            for line in self.lines
            for name, value in line.metrics.items()
        }
        return {name: value for name, value in named.items() if math.isfinite(value)}


def measure_suppression(
    selection: Selection,
    *,
    sae: SparseAutoencoder,
    alive: Bool[np.ndarray, " d_sae"],
    faces: Faces,
    templates: TemplateSet,
    pairs: RowPairs,
    output: Path,
    seed: int = 0,
    batch_size: int = 512,
) -> Suppression:
    """Measure how well the attributes of a selection are read after its features are left out, and what that costs.

    Fresh probes are trained on one half of the people of `faces` and tested on the other, on: the templates (of unit
    length, as they are compared), the same after LEACE and after the projection on the mean difference (both fitted on
    the probes' training people), and templates decoded from all features, without the selected ones, and without as
    many of the other `alive` ones, drawn at random. The pairs are verified with templates treated in the same way.

    Writes suppression.csv, suppression.md and suppression.png to `output`.
    """
    rows = pairs.rows
    first, second = np.searchsorted(rows, pairs.first), np.searchsorted(rows, pairs.second)
    verified = templates.templates_of(rows)
    lines: list[Line] = []
    treated = _treated(selection, sae, alive, faces, verified, seed=seed, batch_size=batch_size)
    for method, label, x, compared in progress(treated, total=6, label="probes", unit="methods"):
        probed = Whitened(x, test=faces.test)
        others = probed.mean_auroc(faces.others)
        distances = squared_distances(compared[first], compared[second])
        verification = {
            "accuracy": cross_validate(distances, pairs.genuine, pairs.fold),
            "tar_far_1e3": tar_at_far(distances, pairs.genuine, 1e-3),
            "eer": equal_error_rate(distances, pairs.genuine),
        }
        for attribute, has in faces.targets.items():
            tested = faces.test & ~np.isnan(has)
            scores = {"linear": probed.linear(has), "mlp": probed.mlp(has, seed=seed)}
            found = {
                name: auroc(score, has[tested] > 0, faces.people[tested], seed=seed) for name, score in scores.items()
            }
            of_line = {"method": method, "label": label, "attribute": attribute, "others": others}
            lines.append(Line(**of_line, **found, **verification))
    n_test = len(np.unique(faces.people[faces.test]))
    n_train = len(np.unique(faces.people)) - n_test
    note = (
        f"Probes were trained, and LEACE and the projection fitted, on {n_train:,} people of {faces.folder}, and "
        f"AUROC was measured on {n_test:,} others: with its 95 % interval over people (bootstrap), of a logistic "
        f"regression and of an MLP with one hidden layer; 0.5 is chance. Others: mean over {len(faces.others)} other "
        f"attributes, linear. Accuracy and its 95 % interval (Wilson), TAR and EER: of {len(pairs):,} pairs"
        + (", whose people are among those of the probes." if faces.folder == templates.folder else ".")
        + (f" No probe could be trained on: {', '.join(faces.skipped)}." if faces.skipped else "")
    )
    suppression = Suppression(lines=lines, n_people=(n_train, n_test), note=note)
    return replace(suppression, files=_write(suppression, output))


def _treated(
    selection: Selection,
    sae: SparseAutoencoder,
    alive: Bool[np.ndarray, " d_sae"],
    faces: Faces,
    verified: Float32[np.ndarray, "m d_in"],
    *,
    seed: int,
    batch_size: int,
) -> Iterator[tuple[str, str, Float64[np.ndarray, "n d_in"], Float64[np.ndarray, "m d_in"]]]:
    """Each method: its name, its label, and the labeled and the verified templates after it."""
    x, compared = _unit(faces.templates), _unit(verified)
    yield "original", "Original templates", x, compared
    z = np.stack(list(faces.targets.values()), axis=1)[~faces.test]
    for name, label, eraser in (
        ("leace", "LEACE", leace(x[~faces.test], z)),
        ("mean_difference", "Projection on the mean difference", mean_difference(x[~faces.test], z)),
    ):
        yield name, label, eraser(x), eraser(compared)
    left = np.flatnonzero(alive & ~selection.features)
    drawn = np.random.default_rng(seed).permutation(left)[: selection.n]
    others = np.isin(np.arange(sae.d_sae), drawn)
    masks = {"all": np.ones(sae.d_sae, dtype=bool), "without": ~selection.features, "random": ~others}
    decoded, paired = (decode_masked(sae, some, masks, batch_size=batch_size) for some in (faces.templates, verified))
    for name, label in (
        ("all", "Decoded from all features"),
        ("without", selection.label),
        ("random", f"Decoded without {len(drawn):,} other features, drawn at random"),
    ):
        yield name, label, decoded[name].templates.astype(np.float64), paired[name].templates.astype(np.float64)


def _unit(templates: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    x = templates.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def _write(suppression: Suppression, output: Path) -> list[Path]:
    lines = suppression.lines
    table = [["method", "attribute", *lines[0].metrics], *([o.method, o.attribute, *o.metrics.values()] for o in lines)]
    with atomic_write(output / "suppression.md") as temporary:
        temporary.write_text(_markdown(suppression), encoding="utf-8")
    erasures = [
        Erasure(
            label=line.label,
            attribute=line.attribute,
            linear=(line.linear.value, line.linear.low, line.linear.high),
            mlp=(line.mlp.value, line.mlp.low, line.mlp.high),
            accuracy=(line.accuracy.mean, *line.accuracy.wilson),
        )
        for line in lines
    ]
    return [
        write_csv(output / "suppression.csv", table),
        output / "suppression.md",
        suppression_figure(erasures, output / "suppression.png", n_test=suppression.n_people[1]),
    ]


def _markdown(suppression: Suppression) -> str:
    lines = [HEADER, ["---"] * 2 + ["---:"] * (len(HEADER) - 2), *map(_cells, suppression.lines)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{suppression.note}\n"


def _cells(line: Line) -> list[str]:
    low, high = line.accuracy.wilson
    return [
        line.attribute,
        line.label,
        *(f"{one.value:.3f} ({one.low:.3f} … {one.high:.3f})" for one in (line.linear, line.mlp)),
        "–" if math.isnan(line.others) else f"{line.others:.3f}",
        f"{line.accuracy.mean:.4f} ({low:.4f} … {high:.4f})",
        "too few pairs" if math.isnan(line.tar_far_1e3) else f"{line.tar_far_1e3:.4f}",
        f"{line.eer:.4f}",
    ]
