"""features.parquet and top_faces.parquet: what describe writes, and all later stages read.

    features.parquet     one row a feature: how it fires (COLUMNS below), then its readings (docs/readings.md)
    top_faces.parquet    feature, list (top or sampled), place, row, image_id, identity, activation
    faces.parquet        row, image_id, l0 (features that the face fires)

What concerns all features (schema version, number of faces, digests of SAE and templates) is in the Parquet metadata of
features.parquet, as JSON under the key fsae_mlflow.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int32

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.activity.summary import QUANTILES, Activity, FaceLists
from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.files.documents import sha256
from fsae_mlflow.parameters import fingerprint
from fsae_mlflow.templates.set import TemplateSet

FEATURES, TOP_FACES, FACES = "features.parquet", "top_faces.parquet", "faces.parquet"
SCHEMA_VERSION = 1
KEY = b"fsae_mlflow"
COLUMNS = ("n_faces", "density", "mean", "std", *(f"q{round(100 * q)}" for q in QUANTILES), "percentile", "maximum")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Description:
    """How each feature fires, what it means (`columns`, by name), and what both were computed from (`about`)."""

    activity: Activity
    columns: Mapping[str, np.ndarray]
    about: Mapping[str, Any]

    def require_of(self, *, sae: str, templates: str = "", force: bool = False) -> None:
        """Check that the description is of the SAE with this digest and, where given, of this template set; with
        `force` a difference is a warning.

        Raises: UserError naming both digests.
        """
        for name, wanted in (("sae", sae), ("templates", templates)):
            if wanted and self.about[name] != wanted:
                sentence = f"readings: they describe {name} {self.about[name]}, but this run uses {wanted}"
                if not force:
                    raise UserError(
                        f"{sentence}; run describe with these inputs, or give force=true to continue anyway."
                    )
                logger.warning("%s; continuing, because force=true.", sentence)


def write_description(description: Description, templates: TemplateSet, folder: Path) -> list[Path]:
    """Write features.parquet and top_faces.parquet."""
    activity = description.activity
    values = (
        activity.counts,
        activity.density,
        activity.mean,
        activity.std,
        *activity.quantiles,
        activity.percentile,
        activity.maxima,
    )
    about = {
        "schema_version": SCHEMA_VERSION,
        "n_faces": activity.n_faces,
        "mean_norm": activity.mean_norm,
        "fvu": activity.fvu,
        **description.about,
    }
    columns = {"feature": np.arange(len(activity.counts)), **dict(zip(COLUMNS, values, strict=True))}
    table = pa.table({name: pa.array(column) for name, column in (columns | dict(description.columns)).items()})
    faces = _face_table(activity, templates)
    written = []
    for name, one in ((FEATURES, table.replace_schema_metadata({KEY: json.dumps(about).encode()})), (TOP_FACES, faces)):
        with atomic_write(folder / name) as path:
            pq.write_table(one, path)
        written.append(folder / name)
    return written


def write_l0(l0: Int32[np.ndarray, " n"], templates: TemplateSet, folder: Path) -> Path:
    """Write faces.parquet."""
    kinds = pa.schema([("row", pa.int64()), ("image_id", pa.string()), ("l0", pa.int32())])
    with atomic_write(folder / FACES) as path, pq.ParquetWriter(path, kinds) as writer:
        for first, table in templates.tables(["image_id"]):
            rows = np.arange(first, first + len(table))
            columns = [pa.array(rows), table.column("image_id").combine_chunks(), pa.array(l0[rows])]
            writer.write_table(pa.Table.from_arrays(columns, schema=kinds))
    return folder / FACES


def read_description(folder: Path | str) -> Description:
    """What describe wrote to `folder`.

    Raises: UserError where the folder holds no readings, or those of a newer version.
    """
    folder = Path(folder)
    try:
        table, faces = pq.read_table(folder / FEATURES), pq.read_table(folder / TOP_FACES)
        about = json.loads((table.schema.metadata or {})[KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise UserError(
            f"readings: {folder} holds no readable {FEATURES} and {TOP_FACES} ({error}); make them with describe."
        ) from error
    if about["schema_version"] > SCHEMA_VERSION:
        raise UserError(
            f"readings: {folder} has schema version {about['schema_version']}; this fsae_mlflow reads versions up to "
            f"{SCHEMA_VERSION}; update fsae_mlflow."
        )
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    if missing := [name for name in ("feature", *COLUMNS) if name not in columns]:
        raise UserError(f"readings: {folder / FEATURES} has no column {missing[0]}; make it with describe.")
    counts, _, mean, std, *quantiles, percentile, maxima = (columns.pop(name) for name in COLUMNS)
    del columns["feature"]
    activity = Activity(
        n_faces=about["n_faces"],
        mean_norm=about["mean_norm"],
        fvu=about["fvu"],
        counts=counts,
        mean=mean,
        std=std,
        maxima=maxima,
        quantiles=np.stack(quantiles),
        percentile=percentile,
        top=_lists(faces, "top", len(counts)),
        sampled=_lists(faces, "sampled", len(counts)),
    )
    return Description(activity=activity, columns=columns, about=about)


def write_with_columns(folder: Path, output: Path, columns: Mapping[str, np.ndarray]) -> list[Path]:
    """Write the description in `folder` to `output`, with columns of d_sae values added, or put in the place of those
    of the same name.
    """
    table = pq.read_table(folder / FEATURES)
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop_columns(name)
        table = table.append_column(name, pa.array(values))
    with atomic_write(output / FEATURES) as path:
        pq.write_table(table, path)
    others = [name for name in (TOP_FACES, FACES) if (folder / name).is_file()]
    for name in others:
        with atomic_write(output / name) as path:
            shutil.copyfile(folder / name, path)
    return [output / name for name in (FEATURES, *others)]


def read_activity(
    folder: Path | str, *, sae: str, d_sae: int, templates: TemplateSet | None = None, force: bool = False
) -> Activity:
    """How the features of the SAE with the digest `sae` fire: `read_readings` without the meanings."""
    return read_readings(folder, sae=sae, d_sae=d_sae, templates=templates, force=force).activity


def read_readings(
    folder: Path | str, *, sae: str, d_sae: int, templates: TemplateSet | None = None, force: bool = False
) -> Description:
    """How the features of the SAE with the digest `sae` fire and what they mean, as describe wrote it to `folder`.

    The rows of the faces are those of `templates`; None takes a description on any template set.

    Raises: UserError where the folder holds no readings; where they describe another SAE or template set, unless
    `force` is set; and always where the number of features or of faces differs.
    """
    description = read_description(folder)
    description.require_of(sae=sae, templates="" if templates is None else templates.digest, force=force)
    activity = description.activity
    n_faces = activity.n_faces if templates is None else len(templates)
    if (len(activity.counts), activity.n_faces) != (d_sae, n_faces):
        raise UserError(
            f"readings: {folder} has {len(activity.counts):,} features on {activity.n_faces:,} faces, and this run "
            f"needs {d_sae:,} on {n_faces:,}; run describe with these inputs."
        )
    return description


def readings_digest(folder: Path | str) -> str:
    """A short hash of features.parquet and top_faces.parquet."""
    return fingerprint({name: sha256(Path(folder) / name) for name in (FEATURES, TOP_FACES)})


def _face_table(activity: Activity, templates: TemplateSet) -> pa.Table:
    parts = []
    for name, lists in (("top", activity.top), ("sampled", activity.sampled)):
        feature, place = np.nonzero(lists.used)
        parts.append(
            (feature, np.full(len(feature), name), place, lists.rows[feature, place], lists.activations[feature, place])
        )
    feature, kind, place, row, activation = map(np.concatenate, zip(*parts, strict=True))
    different, number = np.unique(row.astype(np.int64), return_inverse=True)
    names = templates.take(["image_id", "identity"], different).take(number)
    order = np.lexsort((place, kind != "top", feature))
    table = pa.table(
        {
            "feature": feature,
            "list": kind,
            "place": place,
            "row": row,
            "image_id": names.column("image_id"),
            "identity": names.column("identity"),
            "activation": activation,
        }
    )
    return table.take(order)


def _lists(faces: pa.Table, kind: str, d_sae: int) -> FaceLists:
    of_kind = faces.filter(pc.field("list") == kind)
    feature, place = of_kind.column("feature").to_numpy(), of_kind.column("place").to_numpy()
    n = np.bincount(feature, minlength=d_sae)
    shape = (d_sae, int(n.max(initial=0)))
    rows, activations = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    rows[feature, place] = of_kind.column("row").to_numpy()
    activations[feature, place] = of_kind.column("activation").to_numpy()
    return FaceLists(rows=rows, activations=activations, n=n.astype(np.int32))
