"""Writing a template set shard by shard; `set.py` describes the files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fsae_mlflow import __version__
from fsae_mlflow.atomic import atomic_write
from fsae_mlflow.templates.schema import FACE_SCHEMA, FAILURE_SCHEMA, SCHEMA_VERSION, FaceRow, schema
from fsae_mlflow.templates.set import MARKER, TemplateSet


def write_shard(
    folder: Path,
    number: int,
    rows: Sequence[FaceRow],
    failures: Sequence[tuple[str, str]],
    *,
    width: int,
    attributes: Mapping[str, str] | None = None,
) -> None:
    """Write a shard of an unfinished set: faces and failures first, because the templates mark the shard as complete.

    Raises: ValueError for a template of another width or with a value that is not finite.
    """
    for row in rows:
        _check(row, width)
    shape = schema(width, attributes)
    columns = {
        column.name: [_cell(getattr(row, column.name), column.type) for row in rows] for column in schema(width)
    } | {name: [row.attributes[place] for row in rows] for place, name in enumerate(attributes or {})}
    faces = {"image_id": columns["image_id"], "face": [row.jpeg for row in rows]}
    reasons = [{"image_id": image_id, "reason": reason} for image_id, reason in failures]
    _write_table(_shard(folder, "faces", number), pa.table(faces, FACE_SCHEMA))
    _write_table(_shard(folder, "failures", number), pa.Table.from_pylist(reasons, FAILURE_SCHEMA))
    _write_table(_shard(folder, "templates", number), pa.table(columns, shape))


def has_shard(folder: Path, number: int) -> bool:
    """Whether shard `number` is complete."""
    return _shard(folder, "templates", number).is_file()


def finish(
    folder: Path, *, width: int, metadata: dict[str, Any], attributes: Mapping[str, str] | None = None
) -> TemplateSet:
    """Merge the failures of a set whose shards are all written, and mark it as finished.

    Raises: ValueError if no picture gave a row; the set then stays unfinished.
    """
    for stale in folder.glob(".*.tmp"):
        stale.unlink()
    parts = sorted(folder.glob("failures-*.parquet"))
    with (
        atomic_write(folder / "failures.parquet") as temporary,
        pq.ParquetWriter(temporary, FAILURE_SCHEMA, compression="zstd") as merged,
    ):
        for part in parts:
            merged.write_table(pq.read_table(part))
    shards = sorted(folder.glob("templates-*.parquet"))
    n_rows = sum(pq.read_metadata(shard).num_rows for shard in shards)
    reasons = pq.read_table(folder / "failures.parquet").column("reason").to_pylist()
    if not n_rows:
        most = f", most often: {max(set(reasons), key=reasons.count)}" if reasons else "."
        raise ValueError(f"templates: none of the {len(reasons)} pictures gave a face{most}")
    marker = {
        "schema_version": SCHEMA_VERSION,
        "fsae_mlflow": __version__,
        "width": width,
        "attributes": dict(attributes or {}),
        "n_rows": n_rows,
        "n_shards": len(shards),
        "n_failures": len(reasons),
        **metadata,
    }
    with atomic_write(folder / MARKER) as temporary:
        temporary.write_text(json.dumps(marker, indent=2))
    for part in parts:
        part.unlink()
    return TemplateSet.open(folder)


def _check(row: FaceRow, width: int) -> None:
    if row.template.shape != (width,) or not np.isfinite(row.template).all():
        raise ValueError(f"{row.image_id}: the template must be {width} finite numbers; check the recognizer.")


def _shard(folder: Path, kind: str, number: int) -> Path:
    return folder / f"{kind}-{number:05d}.parquet"


def _cell(value: Any, kind: pa.DataType) -> Any:
    return np.asarray(value).ravel() if pa.types.is_fixed_size_list(kind) else value


def _write_table(path: Path, table: pa.Table) -> None:
    with atomic_write(path) as temporary:
        # a dictionary would make the file a sixth larger and take three times as long, as values hardly repeat
        pq.write_table(table, temporary, compression="zstd", use_dictionary=False)
