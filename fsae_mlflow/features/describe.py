"""The stage: an SAE and a template set → what each feature means, and how that compares with simple dictionaries."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import nn
from torch.nn import functional as F

from fsae_mlflow.compute import choose_device
from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.aligned import to_float
from fsae_mlflow.features.activity.duplicates import distinct, without_duplicates
from fsae_mlflow.features.activity.survey import Survey, survey
from fsae_mlflow.features.attributes import Labels, read_attributes
from fsae_mlflow.features.clusters import clusters
from fsae_mlflow.features.controls import control
from fsae_mlflow.features.judgments import ReadFaces
from fsae_mlflow.features.probes import probes
from fsae_mlflow.features.properties import face_properties
from fsae_mlflow.features.readings import Readings, read_features
from fsae_mlflow.features.settings import DescribeSettings
from fsae_mlflow.features.statistics.order import Groups
from fsae_mlflow.features.table import Description, write_description, write_l0
from fsae_mlflow.identities import holdout_rows
from fsae_mlflow.progress import OnMetrics, progress
from fsae_mlflow.provenance import require_same_recognizer
from fsae_mlflow.ranks import connected_ranks
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.templates.set import TemplateSet

FEWEST_PEOPLE = 20
RESERVE = 1.5
"""Top faces that the survey keeps for each that is shown, so that near-duplicates can be dropped."""

JUDGED_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Described:
    """The readings of an SAE's features: the description, the metrics by dictionary, and the files that were written.

    `metrics` are of the SAE ("sae") and of each control, by its name.
    """

    description: Description
    metrics: dict[str, dict[str, float]]
    n_people: tuple[int, int]
    files: list[Path]


def describe(
    settings: DescribeSettings,
    *,
    templates: TemplateSet,
    sae: SparseAutoencoder,
    judge: nn.Module | None,
    about: Mapping[str, str],
    output: Path,
    on_metrics: OnMetrics,
) -> Described | None:
    """Read the features of `sae` on the faces of `templates`; under torchrun only the first process has a result.

    Writes features.parquet, top_faces.parquet and faces.parquet to `output`. `about` is stored with them: the digests
    of sae and templates. `on_metrics` gets L0, fvu, the readings' metrics and the probes', those of a control under
    its name.

    Raises: UserError for fewer than 20 people, for attributes that fit no face, and where templates and SAE do not
    belong together, unless `force` is set.
    """
    require_same_recognizer(templates.origin, sae.origin, force=settings.force)
    labels = read_attributes(settings.attributes, templates)
    sae = sae.to(choose_device(settings.device)).eval()
    with connected_ranks() as ranks:
        most = round(settings.n_top_faces * RESERVE)
        found = survey(
            sae,
            templates,
            most=most,
            read_faces=settings.read_faces,
            batch_size=settings.batch_size,
            ranks=ranks,
        )
        if not ranks.leads:
            return None
    activity = found.activity
    rows, entries = found.read
    x = templates.templates_of(rows)
    kept = distinct(x)
    rows, x, entries = rows[kept], x[kept], entries.of_rows(kept)
    faces = _faces_to_read(settings, templates, rows, labels, judge)
    both = clusters(activity.density)
    readings = read_features(entries, faces, high=both.high, seed=settings.seed)
    top, n_duplicates = without_duplicates(activity.top, templates, most=settings.n_top_faces)
    columns = {
        "cluster": np.where(both.high, "high", np.where(both.low, "low", "dead")),
        "n_people": Groups.of(entries, faces.people).n_people,
        "n_near_duplicates": n_duplicates,
        **readings.columns,
    }
    description = Description(activity=activity.with_top(top), columns=columns, about=about)
    files = [
        *write_description(description, templates, output),
        write_l0(np.concatenate(found.l0s), templates, output),
    ]
    metrics = {"sae": _metrics(found, readings, entries, faces) | {"readings/n_near_duplicates": float((~kept).sum())}}
    for name in settings.control_names:
        metrics[name] = _of_control(name, x, faces, sae, seed=settings.seed)
    for name, values in metrics.items():
        prefix = "" if name == "sae" else f"controls/{name}/"
        on_metrics({f"{prefix}{key}": value for key, value in values.items()}, 0)
    n_confirm = len(np.unique(faces.people[faces.confirm]))
    return Described(
        description=description,
        metrics=metrics,
        n_people=(len(faces.names) - n_confirm, n_confirm),
        files=files,
    )


def _faces_to_read(
    settings: DescribeSettings,
    templates: TemplateSet,
    rows: Int64[np.ndarray, " n"],
    labels: Labels,
    judge: nn.Module | None,
) -> ReadFaces:
    identities = templates.take(["identity"], rows).column("identity").to_numpy(zero_copy_only=False)
    names, people = np.unique(identities.astype(str), return_inverse=True)
    if len(names) < FEWEST_PEOPLE:
        raise UserError(
            f"templates: readings are found on some people and confirmed on others, which takes at least "
            f"{FEWEST_PEOPLE} people; {templates.folder} has {len(names)}. Extract faces of more people."
        )
    return ReadFaces(
        people=people,
        names=names.tolist(),
        confirm=holdout_rows(identities, settings.confirm, seed=settings.seed),
        properties=face_properties(templates, rows),
        booleans={name: values[rows] for name, values in labels.booleans.items()},
        numbers={name: values[rows] for name, values in labels.numbers.items()},
        judge=None if judge is None else _judged(judge, templates, rows, choose_device(settings.device)),
    )


@torch.no_grad()
def _judged(
    judge: nn.Module, templates: TemplateSet, rows: Int64[np.ndarray, " n"], device: torch.device
) -> Float32[np.ndarray, "n d"]:
    """The judge's L2-normalized templates of the aligned faces."""
    judge, found = judge.to(device), []
    faces = templates.faces_in_order(rows)
    batches = iter(lambda: list(islice(faces, JUDGED_AT_ONCE)), [])
    for batch in progress(batches, total=len(rows), label="judge", unit="faces", size=len):
        pixels = to_float(np.stack([np.asarray(face) for _, face in batch])).to(device)
        found.append(F.normalize(judge(pixels), dim=1).cpu().numpy())
    return np.concatenate(found)


def _metrics(found: Survey, readings: Readings, entries: Entries, faces: ReadFaces) -> dict[str, float]:
    activity = found.activity
    probed = probes(entries, faces.booleans, people=faces.people, confirm=faces.confirm)
    alive = float((activity.counts > 0).mean())
    return {"l0": activity.l0, "fvu": activity.fvu, "alive": alive, **readings.metrics, **probed.metrics}


def _of_control(
    name: str,
    x: Float32[np.ndarray, "n d_in"],
    faces: ReadFaces,
    sae: SparseAutoencoder,
    *,
    seed: int,
) -> dict[str, float]:
    """The metrics of a control of as many features as the SAE, on the read faces."""
    other = control(name, x, n_features=sae.d_sae, seed=seed, origin=sae.origin)
    found = survey(other, x, most=1, read_faces=len(x))
    entries, both = found.read[1], clusters(found.activity.density)
    return _metrics(found, read_features(entries, faces, high=both.high, seed=seed), entries, faces)
