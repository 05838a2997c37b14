"""The template set: a folder of Parquet shards. Only the package `templates` knows this layout.

    set.json                   counts, recognizer, settings, each shard's rows, bytes and SHA-256 (manifest.py), and the
                               failures' SHA-256; written last, so a folder without it is unfinished
    templates-00000.parquet    image_id, identity, template, place and quality of the face (schema.py)
    faces-00000.parquet        image_id, face (the aligned face as JPEG bytes)
    failures.parquet           image_id, reason

Both kinds of shard have the same rows in the same order. Extra columns of the source (age, pose, …) come last. An
unfinished set also has failures-00000.parquet, … beside its shards; a shard is complete if its templates-NNNNN.parquet
exists.
"""

import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64, Shaped, UInt8
from PIL import Image

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.documents import sha256
from fsae_mlflow.progress import progress
from fsae_mlflow.provenance import Origin
from fsae_mlflow.templates.manifest import AGAIN, ShardFile
from fsae_mlflow.templates.marker import MARKER, read_marker
from fsae_mlflow.templates.schema import schema

FAILURES = "failures.parquet"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TemplateSet:
    """A finished template set on disk, read column by column on demand.

    A shard's checksum is verified when it is first opened, its rows and that templates are finite whenever it is read.
    Sets of version 0.1 have no checksums.

    Reading raises: UserError naming the file that is damaged, missing or not of this set.
    """

    folder: Path
    metadata: dict[str, Any]
    verified: set[str] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path | str) -> "TemplateSet":
        """Open a finished set.

        Raises: UserError if the folder is not a finished template set, has a newer schema, or lacks a shard.
        """
        folder = Path(folder)
        metadata = read_marker(folder)
        templates = cls(folder, metadata)
        if not templates.manifest:
            logger.warning(
                "templates: %s is of version 0.1 and has no checksums, so not every damage to its files is seen", folder
            )
        n_found, n_rows = sum(templates._n_rows(path) for path in templates._shards("templates")), len(templates)
        if n_found != n_rows:
            raise UserError(
                f"templates: the shards in {folder} have {n_found:,} rows, and its {MARKER} says {n_rows:,}; "
                f"{templates._advice}."
            )
        return templates

    def __len__(self) -> int:
        return self.metadata["n_rows"]

    @property
    def width(self) -> int:
        """The number of values in a template."""
        return self.metadata["width"]

    @cached_property
    def manifest(self) -> dict[str, ShardFile]:
        """The shards' files by name, as they were written; empty for a set of version 0.1."""
        return {entry["file"]: ShardFile(**entry) for entry in self.metadata.get("shards", [])}

    @property
    def origin(self) -> Origin:
        """The recognizer that made the templates."""
        return Origin.of(f"templates: {self.folder}", self.metadata.get("recognizer"))

    @property
    def attributes(self) -> dict[str, str]:
        """The extra columns of the source, each "int", "float", "bool" or "string"."""
        return self.metadata.get("attributes", {})

    @cached_property
    def templates(self) -> Float32[np.ndarray, "n d"]:
        """All templates as the recognizer gave them, in row order."""
        return np.concatenate(list(self.chunks("template"))) if len(self) else np.empty((0, self.width), np.float32)

    @cached_property
    def image_ids(self) -> list[str]:
        """The id of each row's face, in row order."""
        return self.column("image_id").tolist()

    @cached_property
    def identities(self) -> np.ndarray:
        """The identity of each row's face, in row order."""
        return self.column("identity")

    @cached_property
    def digest(self) -> str:
        """A short hash of image ids, identities and templates in row order."""
        content = hashlib.sha256()
        tables = (table for _, table in self.tables(["image_id", "identity", "template"]))
        for table in progress(tables, total=len(self), label="digest", unit="templates", size=len):
            rows = zip(*(table.column(name).to_pylist() for name in ("image_id", "identity")), strict=True)
            names = (f"{image_id}\0{identity}\n".encode() for image_id, identity in rows)
            templates = _matrix(table.column("template").combine_chunks())
            for name, template in zip(names, templates, strict=True):
                content.update(name + template.tobytes())
        return content.hexdigest()[:16]

    def column(self, name: str) -> np.ndarray:
        """One column in row order; a list column is an (n, length) array, an unknown number nan."""
        kind = schema(self.width, self.attributes).field(name).type
        if pa.types.is_fixed_size_list(kind):
            return np.concatenate(list(self.chunks(name)))
        column = pa.chunked_array(
            [chunk for _, table in self.tables([name]) for chunk in table.column(name).chunks], kind
        )
        if pa.types.is_string(kind) or (column.null_count and pa.types.is_boolean(kind)):
            return np.array(column.to_pylist(), dtype=object)
        return column.cast(pa.float64()).to_numpy() if column.null_count else column.to_numpy()

    def chunks(self, name: str) -> Iterator[Float32[np.ndarray, "_ length"]]:
        """A list column ("template", "box", "keypoints") chunk by chunk in row order, one shard in memory at a time."""
        for _, table in self.tables([name]):
            yield from map(_matrix, table.column(name).chunks)

    def tables(self, columns: list[str], *, rows: slice = slice(None)) -> Iterator[tuple[int, pa.Table]]:
        """Columns of consecutive rows, shard by shard, each table with its first row; other shards are not opened."""
        start, stop, _ = rows.indices(len(self))
        first = 0
        for path in self._shards("templates"):
            n = self._n_rows(path)
            if first < stop and first + n > start:
                table = self._read(path, columns)
                if "template" in columns:
                    self._check_templates(path, table.column("template"))
                skipped = max(start - first, 0)
                yield first + skipped, table.slice(skipped, min(stop - first, n) - skipped)
            first += n

    def batches(
        self, *, rows: slice = slice(None)
    ) -> Iterator[tuple[int, Float32[np.ndarray, "n d"], Shaped[np.ndarray, " n"]]]:
        """The templates and identities of consecutive rows, shard by shard, each with its first row."""
        for first, table in self.tables(["template", "identity"], rows=rows):
            identities = table.column("identity").to_numpy(zero_copy_only=False)
            yield first, _matrix(table.column("template").combine_chunks()), identities

    def take(self, columns: list[str], rows: Int64[np.ndarray, " n"]) -> pa.Table:
        """Columns of ascending rows, each once; one shard is in memory at a time."""
        parts = [
            table.take(rows[slice(*np.searchsorted(rows, [first, first + len(table)]))] - first)
            for first, table in self.tables(columns)
        ]
        return pa.concat_tables(parts)

    def templates_of(self, rows: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n d"]:
        """The templates of ascending rows, each once."""
        return _matrix(self.take(["template"], rows).column("template").combine_chunks())

    def faces(self, rows: Sequence[int] | np.ndarray) -> list[Image.Image]:
        """The aligned faces of the given rows, decoded."""
        wanted = np.asarray(rows, dtype=np.int64)
        found = dict(self.faces_in_order(wanted))
        return [found[row] for row in wanted.tolist()]

    def faces_in_order(self, rows: Sequence[int] | np.ndarray) -> Iterator[tuple[int, Image.Image]]:
        """The given rows in ascending order, each once, with their aligned faces, one shard in memory at a time."""
        wanted = np.unique(np.asarray(rows, dtype=np.int64))
        first = 0
        for path in self._shards("faces"):
            last = first + self._n_rows(path)
            inside = wanted[(first <= wanted) & (wanted < last)].tolist()
            if inside:
                faces = self._read(path, ["face"]).column("face")
                for row in inside:
                    yield row, Image.open(io.BytesIO(faces[row - first].as_py())).convert("RGB")
            first = last
        if first != len(self):
            raise UserError(
                f"templates: {self.folder} must have a face for each of its {len(self):,} rows; it has {first:,}; "
                f"{self._advice}."
            )

    def pixels_in_order(
        self, rows: Sequence[int] | np.ndarray, *, at_once: int
    ) -> Iterator[UInt8[np.ndarray, "batch h w 3"]]:
        """The aligned faces of the given rows in ascending order, each once, `at_once` together."""
        faces = self.faces_in_order(rows)
        while batch := [np.asarray(face) for _, face in islice(faces, at_once)]:
            yield np.stack(batch)

    @property
    def failures(self) -> list[tuple[str, str]]:
        """The pictures without a row, each with its reason."""
        return [(row["image_id"], row["reason"]) for row in self.failure_table().to_pylist()]

    def failure_table(self) -> pa.Table:
        """The failures in the pictures' order, as they are stored."""
        path = self.folder / FAILURES
        remedy = "restore it from a copy, or extract the set into another output"
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"templates: {path} is damaged or missing ({error}); {remedy}.") from error
        if len(table) != self.metadata["n_failures"]:
            raise UserError(
                f"templates: {path} has {len(table)} rows, and {MARKER} says {self.metadata['n_failures']}; {remedy}."
            )
        if self.metadata.get("failures_checksum", found := sha256(path)) != found:  # older sets have none
            raise UserError(
                f"templates: {path} differs from the file that was written (SHA-256 in {MARKER}); {remedy}."
            )
        return table

    @property
    def _advice(self) -> str:
        return AGAIN if self.manifest else "extract the set again into another output"

    def _shards(self, kind: str) -> list[Path]:
        found = sorted(self.folder.glob(f"{kind}-*.parquet"))
        expected = [name for name in self.manifest if name.startswith(kind)]
        names = {path.name for path in found}
        if lost := [name for name in expected if name not in names]:
            raise UserError(f"templates: {self.folder / lost[0]} is missing; {self._advice}.")
        if self.manifest and (foreign := sorted(names.difference(expected))):
            raise UserError(
                f"templates: {self.folder / foreign[0]} is not a shard of this set ({MARKER} lists {len(expected)}); "
                "delete it."
            )
        return found

    def _n_rows(self, path: Path) -> int:
        written = self.manifest.get(path.name)
        return written.rows if written else self._parquet(pq.read_metadata, path).num_rows

    def _read(self, path: Path, columns: list[str]) -> pa.Table:
        """Columns of a shard, which is compared with what was written when it is first opened."""
        written = self.manifest.get(path.name)
        if written and path.name not in self.verified:
            if fault := written.fault(self.folder):
                raise UserError(f"templates: {path} {fault}; {AGAIN}.")
            self.verified.add(path.name)
        table = self._parquet(pq.read_table, path, columns=columns)
        if written and table.num_rows != written.rows:
            raise UserError(
                f"templates: {path} has {table.num_rows:,} rows, and {MARKER} says {written.rows:,}; restore {MARKER}, "
                "or extract the set again into another output."
            )
        return table

    def _check_templates(self, path: Path, column: pa.ChunkedArray) -> None:
        kind = column.type
        if not pa.types.is_fixed_size_list(kind) or kind.list_size != self.width or column.null_count:
            raise UserError(
                f"templates: {path} must hold templates of {self.width} numbers; it holds {kind}. It is of another "
                f"set: {self._advice}."
            )
        first = 0
        for chunk in column.chunks:
            values = _matrix(chunk)
            if not np.isfinite(values).all():
                row = first + int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
                raise UserError(
                    f"templates: row {row} of {path} holds NaN or infinite numbers; extract the set again into another "
                    "output."
                )
            first += len(chunk)

    def _parquet(self, read: Callable[..., Any], path: Path, **more: Any) -> Any:
        try:
            return read(path, **more)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"templates: {path} cannot be read ({error}); {self._advice}.") from error


def _matrix(column: pa.FixedSizeListArray) -> Float32[np.ndarray, "n length"]:
    """A list column as one array, without a copy where possible."""
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
