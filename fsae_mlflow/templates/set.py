"""The template set: a folder of Parquet shards. Only the room `templates` knows this layout.

    set.json                   counts, recognizer, settings; written last, so a folder without it is unfinished
    templates-00000.parquet    image_id, identity, template, place and quality of the face (schema.py)
    faces-00000.parquet        image_id, face (the aligned face as JPEG bytes)
    failures.parquet           image_id, reason

Both kinds of shard have the same rows in the same order. Extra columns of the source (age, pose, …) come last. An
unfinished set also has failures-00000.parquet, … beside its shards; a shard is complete if its templates-NNNNN.parquet
exists.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32
from PIL import Image

from fsae_mlflow.documents import check_fields, read_object
from fsae_mlflow.errors import UserError
from fsae_mlflow.templates.schema import SCHEMA_VERSION, schema

MARKER = "set.json"
KINDS = ("int", "float", "bool", "string")
REMEDY = "restore it from a copy, or extract the set again"


@dataclass(frozen=True)
class TemplateSet:
    """A finished template set on disk, read column by column on demand."""

    folder: Path
    metadata: dict[str, Any]

    @classmethod
    def open(cls, folder: Path | str) -> "TemplateSet":
        """Open a finished set.

        Raises: UserError if the folder is not a finished template set, or has a newer schema.
        """
        folder = Path(folder)
        marker = folder / MARKER
        if not marker.is_file():
            found = (
                "it is unfinished: run the same extract command again"
                if any(folder.glob("*.parquet"))
                else "make one with the extract entry point"
            )
            raise UserError(f"templates: {folder} is not a finished template set (no {MARKER}); {found}.")
        metadata = read_object(marker, "templates:", remedy=REMEDY, fields={"schema_version": int})
        if metadata["schema_version"] > SCHEMA_VERSION:
            raise UserError(
                f"templates: {folder} has schema version {metadata['schema_version']}; "
                f"this version of fsae_mlflow reads up to {SCHEMA_VERSION}; update it."
            )
        fields = {"n_rows": int, "width": int, "attributes": dict}
        attributes_by_default: dict[str, Any] = {"attributes": {}, **metadata}
        check_fields(attributes_by_default, f"templates: {marker}", fields, remedy=REMEDY)
        if unknown := [name for name, kind in attributes_by_default["attributes"].items() if kind not in KINDS]:
            raise UserError(f"templates: {marker} has attributes of an unknown type: {', '.join(unknown)}; {REMEDY}.")
        return cls(folder, metadata)

    def __len__(self) -> int:
        return self.metadata["n_rows"]

    @property
    def width(self) -> int:
        """The number of values in a template."""
        return self.metadata["width"]

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
        for table in self._tables("templates", ["image_id", "identity", "template"]):
            rows = zip(*(table.column(name).to_pylist() for name in ("image_id", "identity")), strict=True)
            names = (f"{image_id}\0{identity}\n".encode() for image_id, identity in rows)
            templates = table.column("template").combine_chunks().flatten().to_numpy().reshape(-1, self.width)
            for name, template in zip(names, templates, strict=True):
                content.update(name + template.tobytes())
        return content.hexdigest()[:16]

    def column(self, name: str) -> np.ndarray:
        """One column in row order; a list column is an (n, length) array, an unknown number nan."""
        kind = schema(self.width, self.attributes).field(name).type
        if pa.types.is_fixed_size_list(kind):
            return np.concatenate(list(self.chunks(name)))
        column = pa.chunked_array(
            [chunk for table in self._tables("templates", [name]) for chunk in table.column(name).chunks], kind
        )
        if pa.types.is_string(kind) or (column.null_count and pa.types.is_boolean(kind)):
            return np.array(column.to_pylist(), dtype=object)
        return column.cast(pa.float64()).to_numpy() if column.null_count else column.to_numpy()

    def chunks(self, name: str) -> Iterator[Float32[np.ndarray, "_ length"]]:
        """A list column ("template", "box", "keypoints") chunk by chunk in row order, one shard in memory at a time."""
        length = schema(self.width).field(name).type.list_size
        for table in self._tables("templates", [name]):
            for chunk in table.column(name).chunks:
                yield chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, length)

    def faces(self, rows: Sequence[int] | np.ndarray) -> list[Image.Image]:
        """The aligned faces of the given rows, decoded."""
        wanted = np.asarray(rows, dtype=np.int64)
        found: dict[int, Image.Image] = {}
        first = 0
        for path in self._shards("faces"):
            shard = pq.ParquetFile(path)
            last = first + shard.metadata.num_rows
            inside = [row for row in wanted.tolist() if first <= row < last]
            if inside:
                faces = shard.read(["face"]).column("face")
                found |= {row: Image.open(io.BytesIO(faces[row - first].as_py())).convert("RGB") for row in inside}
            first = last
        return [found[row] for row in wanted.tolist()]

    @property
    def failures(self) -> list[tuple[str, str]]:
        """The pictures without a row, each with its reason."""
        table = pq.read_table(self.folder / "failures.parquet")
        return [(row["image_id"], row["reason"]) for row in table.to_pylist()]

    def _shards(self, kind: str) -> list[Path]:
        return sorted(self.folder.glob(f"{kind}-*.parquet"))

    def _tables(self, kind: str, columns: list[str]) -> Iterator[pa.Table]:
        for path in self._shards(kind):
            yield pq.read_table(path, columns=columns)
