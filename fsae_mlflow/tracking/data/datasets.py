"""Datasets as MLflow lists them with a run: name, digest, where they are, and what they hold."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.types import Schema
from mlflow.types.schema import Array, ColSpec, DataType, TensorSpec

from fsae_mlflow.features.table import FEATURES
from fsae_mlflow.templates.marker import source_name
from fsae_mlflow.templates.schema import schema
from fsae_mlflow.templates.set import TemplateSet

TYPES = {
    pa.string(): DataType.string,
    pa.float32(): DataType.float,
    pa.float64(): DataType.double,
    pa.int32(): DataType.integer,
    pa.int64(): DataType.long,
    pa.bool_(): DataType.boolean,
}
NOTHING: Mapping[str, Any] = {}


def dataset_entry(
    name: str,
    digest: str,
    *,
    source: str,
    profile: Mapping[str, Any] = NOTHING,
    layout: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A dataset as the journal keeps it. `source`: its URI, which MLflow can download. `profile`: numbers about it.
    `layout`: its columns or tensors, as MLflow keeps them.

    MLflow's source of type `local` downloads any URI of MLflow, also `runs:/RUN/PATH` and `models:/NAME/VERSION`.
    """
    return {
        "name": name,
        "digest": digest,
        "source_type": "local",
        "source": json.dumps({"uri": source}),
        "schema": json.dumps(layout) if layout else None,
        "profile": json.dumps(dict(profile)),
    }


def folder_source(folder: Path) -> str:
    """The URI of a folder on disk."""
    return folder.resolve().as_uri()


def templates_entry(templates: TemplateSet, *, source: str) -> dict[str, Any]:
    """A template set with the columns of its rows."""
    about = templates.metadata
    profile = {"n_rows": len(templates), "n_failures": about["n_failures"], "width": templates.width}
    if recognizer := about.get("recognizer"):
        profile["recognizer"] = recognizer["name"]
    layout = _columns(schema(templates.width, templates.attributes))
    return dataset_entry(_name(templates), templates.digest, source=source, profile=profile, layout=layout)


def pictures_entry(templates: TemplateSet, faces: str) -> dict[str, Any]:
    """The pictures that a template set is made of, found at `faces`: a path, an address, or a name."""
    about = templates.metadata["source"]
    source = folder_source(Path(faces)) if Path(faces).exists() else faces
    profile = {"n_pictures": about["n_pictures"]}
    return dataset_entry(_name(templates), about["digest"], source=source, profile=profile)


def sae_entry(digest: str, config: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    """An SAE, whose rows are its features. `config`: what its config.json holds."""
    d_in, d_sae = (config["hyperparameters"][name] for name in ("d_in", "d_sae"))
    profile = {"variant": config["variant"], "d_in": d_in, "d_sae": d_sae}
    layout = _columns(pa.field(name, pa.list_(pa.float32(), d_in)) for name in ("W_enc", "W_dec"))
    return dataset_entry("sae", digest, source=source, profile=profile, layout=layout)


def readings_entry(digest: str, folder: Path, *, source: str) -> dict[str, Any]:
    """The readings in `folder` with the columns of features.parquet; without them where it is damaged, which whoever
    reads it says.
    """
    layout, profile = None, {}
    with suppress(OSError, ValueError, pa.ArrowException):
        table = pq.ParquetFile(folder / FEATURES)
        layout = _columns(field for field in table.schema_arrow if field.type in TYPES)
        profile = {"n_features": table.metadata.num_rows}
    return dataset_entry("readings", digest, source=source, profile=profile, layout=layout)


def _name(templates: TemplateSet) -> str:
    return source_name(templates.metadata) or templates.folder.name


def _columns(fields: Iterable[pa.Field]) -> dict[str, Any]:
    columns: list[ColSpec | TensorSpec] = [_column(field) for field in fields]
    return {"mlflow_colspec": Schema(columns).to_dict()}


def _column(field: pa.Field) -> ColSpec:
    if pa.types.is_fixed_size_list(field.type):
        return ColSpec(Array(TYPES[field.type.value_type]), field.name)
    return ColSpec(TYPES[field.type], field.name)
