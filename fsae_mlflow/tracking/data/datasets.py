"""Datasets as MLflow lists them with a run: name, digest, where they are, and what they hold."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from mlflow.types import Schema
from mlflow.types.schema import Array, ColSpec, DataType, TensorSpec

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
    name: str, digest: str, *, source: str, profile: Mapping[str, Any] = NOTHING, columns: Schema | None = None
) -> dict[str, Any]:
    """A dataset as the journal keeps it. `source`: its URI, which MLflow can download. `profile`: numbers about it.

    MLflow's source of type `local` downloads any URI of MLflow, also `runs:/RUN/PATH` and `models:/NAME/VERSION`.
    """
    return {
        "name": name,
        "digest": digest,
        "source_type": "local",
        "source": json.dumps({"uri": source}),
        "schema": json.dumps({"mlflow_colspec": columns.to_dict()}) if columns else None,
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
    columns: list[ColSpec | TensorSpec] = [_column(field) for field in schema(templates.width, templates.attributes)]
    return dataset_entry(_name(templates), templates.digest, source=source, profile=profile, columns=Schema(columns))


def pictures_entry(templates: TemplateSet, faces: str) -> dict[str, Any]:
    """The pictures that a template set is made of, found at `faces`: a path, an address, or a name."""
    about = templates.metadata["source"]
    source = folder_source(Path(faces)) if Path(faces).exists() else faces
    profile = {"n_pictures": about["n_pictures"]}
    return dataset_entry(_name(templates), about["digest"], source=source, profile=profile)


def _name(templates: TemplateSet) -> str:
    return source_name(templates.metadata) or templates.folder.name


def _column(field: pa.Field) -> ColSpec:
    if pa.types.is_fixed_size_list(field.type):
        return ColSpec(Array(TYPES[field.type.value_type]), field.name)
    return ColSpec(TYPES[field.type], field.name)
