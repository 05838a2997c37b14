"""set.json, which says what a template set holds; it is written last."""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.documents import check_fields, read_object
from fsae_mlflow.templates.manifest import ShardFile
from fsae_mlflow.templates.schema import SCHEMA_VERSION

MARKER = "set.json"
KINDS = ("int", "float", "bool", "string")
REMEDY = "restore it from a copy, or delete it and run the same extract command again"


def read_marker(folder: Path) -> dict[str, Any]:
    """What `set.json` says of a finished set.

    Raises: UserError if the folder is not a finished template set, or has a newer schema.
    """
    marker = folder / MARKER
    if not marker.is_file():
        if (folder / "templates" / MARKER).is_file():
            found = f"the set is {folder / 'templates'}"
        elif any(folder.glob("*.parquet")):
            found = "it is unfinished: run the same extract command again"
        else:
            found = "make one with the extract entry point"
        raise UserError(f"templates: {folder} is not a finished template set (no {MARKER}); {found}.")
    place = f"templates: {marker}"
    metadata = read_object(marker, "templates:", remedy=REMEDY, fields={"schema_version": int})
    if metadata["schema_version"] > SCHEMA_VERSION:
        raise UserError(
            f"templates: {folder} has schema version {metadata['schema_version']}; "
            f"this fsae_mlflow reads versions up to {SCHEMA_VERSION}; update fsae_mlflow."
        )
    # Sets of version 0.1 may have neither attributes nor a manifest.
    check_fields(
        {"attributes": {}, **metadata}, place, {"n_rows": int, "width": int, "attributes": dict}, remedy=REMEDY
    )
    if unknown := [name for name, kind in metadata.get("attributes", {}).items() if kind not in KINDS]:
        raise UserError(f"{place} has attributes of an unknown type: {', '.join(unknown)}; {REMEDY}.")
    try:
        [ShardFile(**entry) for entry in metadata.get("shards", [])]
    except TypeError as error:
        raise UserError(f"{place} has a damaged list of shards ({error}); {REMEDY}.") from error
    return metadata


def source_name(about: Mapping[str, Any]) -> str:
    """What the pictures of a template set are called, by its metadata: the last part of their path; "" if unknown."""
    return PurePath(about.get("source", {}).get("name", "")).name
