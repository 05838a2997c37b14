"""The stage: an SAE and a template set → what each feature means, and how that compares with simple dictionaries."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64
from torch import nn

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.absorption import absorption, absorption_metrics
from fsae_mlflow.features.activity.duplicates import distinct, without_duplicates
from fsae_mlflow.features.activity.summary import Activity
from fsae_mlflow.features.activity.survey import Survey, survey
from fsae_mlflow.features.clusters import clusters
from fsae_mlflow.features.comparison.cosines import antipode_share, antipodes
from fsae_mlflow.features.controls import control
from fsae_mlflow.features.labels.attributes import FEWEST_PEOPLE, Labels, read_attributes
from fsae_mlflow.features.labels.judge_templates import judge_templates
from fsae_mlflow.features.labels.properties import face_properties
from fsae_mlflow.features.probes import can_be_probed, probes
from fsae_mlflow.features.readings.judgments import ReadFaces
from fsae_mlflow.features.readings.names import listed
from fsae_mlflow.features.readings.sentences import Readings, confirmed_poses, read_features
from fsae_mlflow.features.settings import DescribeSettings
from fsae_mlflow.features.statistics.association import FEWEST_PEOPLE as FEWEST_IN_GROUP
from fsae_mlflow.features.statistics.order import Groups
from fsae_mlflow.features.table import Description, write_description, write_l0
from fsae_mlflow.identities import holdout_rows
from fsae_mlflow.machine.compute import choose_device
from fsae_mlflow.machine.ranks import connected_ranks
from fsae_mlflow.progress import OnMetrics
from fsae_mlflow.provenance import require_same_recognizer
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.templates.set import TemplateSet

RESERVE = 1.5
"""Top faces that the survey keeps for each that is shown, so that near-duplicates can be dropped."""

OF_CONTROLS = (
    "l0", "fvu", "antipodes", "readings/confirmed_of_alive", "readings/strong_of_alive", "readings/n_kinds",
    "readings/n_identities", "probes/auroc_k1",
)  # fmt: skip
"""The metrics of a control that are logged beside the SAE's: all of each would bury them."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Described:
    """The readings of an SAE's features: the description, the metrics by dictionary, and the files that were written.

    `metrics` are of the SAE ("sae") and of each control, by its name.
    """

    description: Description
    metrics: dict[str, dict[str, float]]
    n_people: tuple[int, int]
    files: list[Path]

    @property
    def headline(self) -> str:
        """How many features are read, and as what."""
        columns, n_alive = self.description.columns, int((self.description.activity.counts > 0).sum())
        counts = {
            "an attribute": columns["attribute_confirmed"],
            "a pose": confirmed_poses(columns),
            "a person": columns["identity_confirmed"],
        }
        of_kinds = ", ".join(f"{int(mask.sum()):,} of {kind}" for kind, mask in counts.items() if mask.any())
        found = f"{int(columns['confirmed'].sum()):,} of {n_alive:,} features have a confirmed reading"
        return f"{found}: {of_kinds}" if of_kinds else found


@dataclass(frozen=True, kw_only=True)
class Read:
    """The faces that are read, without near-duplicates: rows, templates, entries, and what is known of them."""

    rows: Int64[np.ndarray, " n"]
    x: Float32[np.ndarray, "n d_in"]
    entries: Entries
    faces: ReadFaces
    n_near_duplicates: int


def describe(
    settings: DescribeSettings,
    *,
    templates: TemplateSet,
    sae: SparseAutoencoder,
    judge: nn.Module | None,
    about: Mapping[str, str],
    output: Path,
    on_metrics: OnMetrics,
    seen: Bool[np.ndarray, " n_rows"] | None = None,
) -> Described | None:
    """Read the features of `sae` on the faces of `templates`; under torchrun only the first process has a result.

    Writes features.parquet, top_faces.parquet and faces.parquet to `output`. `about` is stored with them: the digests
    of sae and templates. `seen`: the faces that the SAE was trained on, where they are known. `on_metrics` gets L0,
    fvu, the readings' metrics and the probes', and `OF_CONTROLS` of each control under its name.

    Raises: UserError for fewer than 20 people, for attributes that fit no face, for an SAE of which fewer than two
    features fire, and where templates and SAE do not belong together, unless `force` is set.
    """
    require_same_recognizer(templates.origin, sae.origin, force=settings.force)
    _require_people(len(np.unique(templates.identities)), templates)
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
    both = clusters(activity.density)
    read = _read(settings, templates, found, labels, judge)
    faces = read.faces
    readings = read_features(read.entries, faces, high=both.high, seed=settings.seed)
    top, n_duplicates = without_duplicates(activity.top, templates, most=settings.n_top_faces)
    antipode = antipodes(sae.W_dec, activity.counts > 0)
    columns = {
        "cluster": np.where(both.high, "high", np.where(both.low, "low", "dead")),
        "antipode": antipode,
        "n_people": Groups.of(read.entries, faces.people).n_people,
        "n_near_duplicates": n_duplicates,
        **readings.columns,
    }
    description = Description(activity=activity.with_top(top), columns=columns, about=about)
    files = [
        *write_description(description, templates, output),
        write_l0(np.concatenate(found.l0s), templates, output),
    ]
    metrics = {"sae": _metrics(activity, antipode) | _reading_metrics(readings, read)}
    if seen is not None:
        metrics["sae"] |= _seen_metrics(readings, read, seen)
    for name in settings.control_names:
        metrics[name] = _of_control(name, read, sae, seed=settings.seed)
    on_metrics(metrics["sae"], 0)
    for name in settings.control_names:
        values = metrics[name]
        on_metrics({f"controls/{name}/{key}": values[key] for key in OF_CONTROLS if key in values}, 0)
    n_confirm = len(np.unique(faces.people[faces.confirm]))
    return Described(
        description=description,
        metrics=metrics,
        n_people=(len(faces.names) - n_confirm, n_confirm),
        files=files,
    )


def _seen_metrics(readings: Readings, read: Read, seen: Bool[np.ndarray, " n_rows"]) -> dict[str, float]:
    """Whether the people of identity features were among those of the training, beside the share of all people who
    were.
    """
    trained = {read.faces.names[person] for person in np.unique(read.faces.people[seen[read.rows]])}
    people = readings.columns["identity"][readings.columns["identity_confirmed"]]
    of_features = (
        {"readings/identity_seen": float(np.isin(people.astype(str), list(trained)).mean())} if len(people) else {}
    )
    return {"readings/people_seen": len(trained) / len(read.faces.names), **of_features}


def reading_metrics(settings: DescribeSettings, *, templates: TemplateSet, sae: SparseAutoencoder) -> dict[str, float]:
    """The metrics of readings and probes that describe gives for an SAE on a set with attributes, without a judge.

    No metrics without attributes, and, after a line that says why, where features cannot be read: on fewer
    than 20 people, of an SAE without two features that fire, and on damaged faces.
    """
    if not settings.attributes and all(kind == "string" for kind in templates.attributes.values()):
        return {}
    try:
        _require_people(len(np.unique(templates.identities)), templates)
        labels = read_attributes(settings.attributes, templates)
        sae = sae.to(choose_device(settings.device)).eval()
        found = survey(sae, templates, most=1, read_faces=settings.read_faces, batch_size=settings.batch_size)
        read, both = _read(settings, templates, found, labels, None), clusters(found.activity.density)
    except UserError as error:
        logger.warning("The features are not read: %s", error)
        return {}
    return _reading_metrics(read_features(read.entries, read.faces, high=both.high, seed=settings.seed), read)


def _read(
    settings: DescribeSettings, templates: TemplateSet, found: Survey, labels: Labels, judge: nn.Module | None
) -> Read:
    rows, entries = found.read
    x = templates.templates_of(rows)
    kept = distinct(x)
    return Read(
        rows=rows[kept],
        x=x[kept],
        entries=entries.of_rows(kept),
        faces=_faces_to_read(settings, templates, rows[kept], labels, judge),
        n_near_duplicates=int((~kept).sum()),
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
    _require_people(len(names), templates)
    confirm = holdout_rows(identities, settings.confirm, seed=settings.seed)
    booleans = {name: values[rows] for name, values in labels.booleans.items()}
    if rare := [name for name, values in booleans.items() if not can_be_probed(values, people, confirm)]:
        logger.warning(
            "attributes: %d of %d are not probed (%s): in either half of the people, %d must have an attribute and %d "
            "must lack it.",
            *(len(rare), len(booleans), listed(rare), FEWEST_IN_GROUP, FEWEST_IN_GROUP),
        )
    return ReadFaces(
        people=people,
        names=names.tolist(),
        confirm=confirm,
        properties=face_properties(templates, rows),
        booleans=booleans,
        numbers={name: values[rows] for name, values in labels.numbers.items()},
        judge=None if judge is None else judge_templates(judge, templates, rows, choose_device(settings.device)),
    )


def _require_people(n: int, templates: TemplateSet) -> None:
    if n < FEWEST_PEOPLE:
        raise UserError(
            f"templates: readings are found on some people and confirmed on others, which takes at least "
            f"{FEWEST_PEOPLE} people; {templates.folder} has {n}. Extract faces of more people."
        )


def _metrics(activity: Activity, antipode: Float32[np.ndarray, " d_sae"]) -> dict[str, float]:
    return {
        "l0": activity.l0,
        "fvu": activity.fvu,
        "alive": float((activity.counts > 0).mean()),
        "antipodes": antipode_share(antipode),
    }


def _reading_metrics(readings: Readings, read: Read) -> dict[str, float]:
    faces = read.faces
    split = {"people": faces.people, "confirm": faces.confirm}
    return {
        **readings.metrics,
        **probes(read.entries, faces.booleans, **split).metrics,
        **absorption_metrics(absorption(read.entries, faces.booleans, **split)),
        "readings/n_near_duplicates": float(read.n_near_duplicates),
    }


def _of_control(name: str, read: Read, sae: SparseAutoencoder, *, seed: int) -> dict[str, float]:
    """The metrics of a control of as many features as the SAE, on the read faces."""
    other = control(name, read.x, n_features=sae.d_sae, seed=seed, origin=sae.origin)
    found = survey(other, read.x, most=1, read_faces=len(read.x))
    activity, read = found.activity, replace(read, entries=found.read[1])
    both = clusters(activity.density)
    readings = read_features(read.entries, read.faces, high=both.high, seed=seed)
    return _metrics(activity, antipodes(other.W_dec, activity.counts > 0)) | _reading_metrics(readings, read)
