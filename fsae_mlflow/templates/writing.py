"""Writing a template set shard by shard; `set.py` describes the files."""

import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fsae_mlflow import __version__
from fsae_mlflow.errors import UserError
from fsae_mlflow.files.atomic import atomic_write, clean
from fsae_mlflow.files.documents import sha256
from fsae_mlflow.progress import progress
from fsae_mlflow.templates.manifest import ShardFile
from fsae_mlflow.templates.marker import MARKER, read_marker
from fsae_mlflow.templates.schema import FACE_SCHEMA, FAILURE_SCHEMA, SCHEMA_VERSION, FaceRow, schema
from fsae_mlflow.templates.set import FAILURES, TemplateSet

RECORDS = (
    b"fsae_mlflow"  # the key of a shard's two records (manifest.py) in its file of failures, until the set is finished
)


def write_shard(
    folder: Path,
    number: int,
    rows: Sequence[FaceRow],
    failures: Sequence[tuple[str, str]],
    *,
    width: int,
    n_pictures: int,
    attributes: Mapping[str, str] | None = None,
) -> None:
    """Write a shard of an unfinished set: faces and failures first, because the templates mark the shard as complete.

    `n_pictures` is the number of pictures that rows and failures come from.

    Raises: UserError for a template of another width or with a value that is not finite.
    """
    for row in rows:
        _check(row, width)
    shape = schema(width, attributes)
    columns = {
        column.name: [_cell(getattr(row, column.name), column.type) for row in rows] for column in schema(width)
    } | {name: [row.attributes[place] for row in rows] for place, name in enumerate(attributes or {})}
    faces = {"image_id": columns["image_id"], "face": [row.jpeg for row in rows]}
    reasons = [{"image_id": image_id, "reason": reason} for image_id, reason in failures]
    shard = {"rows": len(rows), "n_pictures": n_pictures, "n_failures": len(failures)}
    paths = [_shard(folder, kind, number) for kind in ("templates", "faces")]
    with atomic_write(paths[0]) as of_templates:
        _write_table(of_templates, pa.table(columns, shape))
        with atomic_write(paths[1]) as of_faces:
            _write_table(of_faces, pa.table(faces, FACE_SCHEMA))
            records = [_record(*files, shard) for files in zip(paths, (of_templates, of_faces), strict=True)]
        with atomic_write(_shard(folder, "failures", number)) as of_failures:
            _write_failures(of_failures, pa.Table.from_pylist(reasons, FAILURE_SCHEMA), records)


def has_shard(folder: Path, number: int) -> bool:
    """Whether shard `number` was completely written."""
    return _shard(folder, "templates", number).is_file()


def shard_fault(folder: Path, number: int, n_pictures: int) -> str:
    """What is wrong with a shard of `n_pictures` pictures of an unfinished set; empty if nothing is.

    Shards of version 0.1 have no checksums: they are read, and their pictures counted.
    """
    try:
        records = _records(folder, number)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        return f"cannot be read ({error})"
    if fault := next((f"{record.file} {fault}" for record in records if (fault := record.fault(folder))), ""):
        return fault
    found = records[0].n_pictures
    return "" if found == n_pictures else f"accounts for {found} of {n_pictures} pictures"


def remove_shard(folder: Path, number: int) -> None:
    """Remove a shard of an unfinished set, so that it is made again."""
    for kind in ("templates", "faces", "failures"):
        _shard(folder, kind, number).unlink(missing_ok=True)


def finish(
    folder: Path,
    *,
    n_shards: int,
    width: int,
    metadata: dict[str, Any],
    attributes: Mapping[str, str] | None = None,
) -> TemplateSet:
    """Merge the failures of a set whose shards are all written, and mark it as finished.

    Raises: UserError if no picture gave a row; the set then stays unfinished.
    """
    clean(folder)
    records = [record for number in range(n_shards) for record in _records(folder, number)]
    failures = pa.concat_tables(
        [FAILURE_SCHEMA.empty_table(), *(pq.read_table(_shard(folder, "failures", n)) for n in range(n_shards))]
    ).replace_schema_metadata()
    with atomic_write(folder / FAILURES) as temporary:
        _write_table(temporary, failures)
    n_rows = sum(record.rows for record in records[::2])
    n_pictures = sum(record.n_pictures for record in records[::2])
    reasons = failures.column("reason").to_pylist()
    if not n_rows:
        most = f", most often: {max(set(reasons), key=reasons.count)}" if reasons else "."
        raise UserError(f"templates: none of the {len(reasons)} pictures gave a face{most}")
    marker = {
        "schema_version": SCHEMA_VERSION,
        "fsae_mlflow": __version__,
        "width": width,
        "attributes": dict(attributes or {}),
        "n_rows": n_rows,
        "n_shards": n_shards,
        "n_pictures": n_pictures,
        "n_failures": len(reasons),
        **metadata,
        "shards": [asdict(record) for record in records],
        "failures_checksum": sha256(folder / FAILURES),
    }
    with atomic_write(folder / MARKER) as temporary:
        temporary.write_text(json.dumps(marker, indent=2))
    for number in range(n_shards):
        _shard(folder, "failures", number).unlink()
    return TemplateSet.open(folder)


def faults_of(folder: Path) -> dict[str, str]:
    """What is wrong with the files of a finished set, by name; nothing is known of a set without checksums.

    Raises: UserError if `set.json` is damaged.
    """
    metadata = read_marker(folder)
    records = [ShardFile(**entry) for entry in metadata.get("shards", [])]
    shown = progress(records, total=sum(record.bytes for record in records), label="check", unit="bytes", size=_bytes)
    faults = {record.file: fault for record in shown if (fault := record.fault(folder))}
    if records and metadata["n_rows"] != (n_rows := sum(record.rows for record in records[::2])):
        faults[MARKER] = f"says {metadata['n_rows']} rows, and its shards have {n_rows}"
    return faults


def reopen(folder: Path, faults: Container[str]) -> None:
    """Make a finished set an unfinished one that lacks the shards of the files in `faults`.

    Raises: UserError if `failures.parquet` is damaged.
    """
    metadata = read_marker(folder)
    records = [ShardFile(**entry) for entry in metadata["shards"]]
    failures = TemplateSet(folder, metadata).failure_table()
    first = 0
    for number, pair in enumerate(zip(records[::2], records[1::2], strict=True)):
        last = first + pair[0].n_failures
        with atomic_write(_shard(folder, "failures", number)) as temporary:
            _write_failures(temporary, failures.slice(first, last - first), list(pair))
        first = last
    (folder / MARKER).unlink()
    for number, pair in enumerate(zip(records[::2], records[1::2], strict=True)):
        if any(record.file in faults for record in pair):
            remove_shard(folder, number)


def _records(folder: Path, number: int) -> tuple[ShardFile, ShardFile]:
    """The records of a shard's templates and faces; those of version 0.1 are made from the files."""
    part = pq.read_table(_shard(folder, "failures", number))
    if written := (part.schema.metadata or {}).get(RECORDS):
        templates, faces = json.loads(written)
        return ShardFile(**templates), ShardFile(**faces)
    paths = [_shard(folder, kind, number) for kind in ("templates", "faces")]
    ids, others = (pq.read_table(path).column("image_id").to_pylist() for path in paths)
    if ids != others:
        raise OSError("templates and faces have different rows")
    n_first = sum(not re.search(r"#\d+$", image_id) for image_id in ids)  # #1, #2, … are further faces of a picture
    shard = {"rows": len(ids), "n_pictures": n_first + len(part), "n_failures": len(part)}
    templates, faces = (_record(path, path, shard) for path in paths)
    return templates, faces


def _record(path: Path, written: Path, shard: dict[str, int]) -> ShardFile:
    return ShardFile(file=path.name, bytes=written.stat().st_size, checksum=sha256(written), **shard)


def _write_failures(path: Path, failures: pa.Table, records: list[ShardFile]) -> None:
    text = json.dumps([asdict(record) for record in records])
    _write_table(path, failures.replace_schema_metadata({RECORDS: text}))


def _check(row: FaceRow, width: int) -> None:
    if row.template.shape != (width,) or not np.isfinite(row.template).all():
        raise UserError(f"{row.image_id}: the template must be {width} finite numbers; check the recognizer.")


def _bytes(record: ShardFile) -> int:
    return record.bytes


def _shard(folder: Path, kind: str, number: int) -> Path:
    return folder / f"{kind}-{number:05d}.parquet"


def _cell(value: Any, kind: pa.DataType) -> Any:
    return np.asarray(value).ravel() if pa.types.is_fixed_size_list(kind) else value


def _write_table(path: Path, table: pa.Table) -> None:
    # a dictionary would make the file a sixth larger and take three times as long, as values hardly repeat
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
