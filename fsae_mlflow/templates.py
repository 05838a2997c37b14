"""The template set: a folder of Parquet shards, and the only code that knows its layout.

    set.json                   written last: a folder without it is unfinished
    templates-00000.parquet    image_id, identity, template, probability, box, keypoints, source size, yaw, sharpness, interocular
    faces-00000.parquet        image_id, face (the aligned face as JPEG bytes)
    failures.parquet           image_id, reason

Both kinds of shard hold the same rows in the same order.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32
from PIL import Image

from fsae_mlflow.atomic import written_beside

SCHEMA_VERSION = 1
MARKER = "set.json"


@dataclass(frozen=True, kw_only=True)
class FaceRow:
    """One aligned face with its template and what is known of its origin.

    Boxes and keypoints are in pixels of the upright source image; `yaw` is the signed nose offset over the eye distance,
    `sharpness` the variance of the Laplacian on the aligned face, `interocular` the eye distance in source pixels.
    """

    image_id: str
    identity: str
    template: Float32[np.ndarray, " d"]
    probability: float
    box: Float32[np.ndarray, "4"]
    keypoints: Float32[np.ndarray, "5 2"]
    source_width: int
    source_height: int
    yaw: float
    sharpness: float
    interocular: float
    jpeg: bytes = field(repr=False)


def schema(width: int) -> pa.Schema:
    """The columns of a template shard for templates of `width` numbers."""
    number = pa.float32()
    return pa.schema(
        [
            ("image_id", pa.string()),
            ("identity", pa.string()),
            ("template", pa.list_(number, width)),
            ("probability", number),
            ("box", pa.list_(number, 4)),
            ("keypoints", pa.list_(number, 10)),
            ("source_width", pa.int32()),
            ("source_height", pa.int32()),
            ("yaw", number),
            ("sharpness", number),
            ("interocular", number),
        ]
    )


FACE_SCHEMA = pa.schema([("image_id", pa.string()), ("face", pa.binary())])
FAILURE_SCHEMA = pa.schema([("image_id", pa.string()), ("reason", pa.string())])


class TemplateWriter:
    """Write a template set shard by shard; `close` (or leaving the `with` block without an error) marks it finished."""

    def __init__(self, folder: Path, *, width: int, metadata: dict[str, Any], shard_rows: int = 50_000) -> None:
        self.folder = folder
        self.width = width
        self.metadata = metadata
        self.shard_rows = shard_rows
        self._rows: list[FaceRow] = []
        self._failures: list[dict[str, str]] = []
        self._n_rows = self._n_shards = 0
        folder.mkdir(parents=True, exist_ok=True)
        for stale in [folder / MARKER, *folder.glob("*.parquet")]:
            stale.unlink(missing_ok=True)

    def write(self, rows: Iterable[FaceRow]) -> None:
        """Append rows; a shard is written whenever `shard_rows` have gathered.

        Raises: ValueError for a template of another width or with a number that is not finite.
        """
        for row in rows:
            if row.template.shape != (self.width,) or not np.isfinite(row.template).all():
                raise ValueError(f"{row.image_id}: its template must be {self.width} finite numbers; check the recogniser.")
            self._rows.append(row)
            if len(self._rows) == self.shard_rows:
                self._write_shard()

    def fail(self, image_id: str, reason: str) -> None:
        """Record an image that gave no row, with a reason a person understands."""
        self._failures.append({"image_id": image_id, "reason": reason})

    def close(self) -> "TemplateSet":
        """Write what is left and the marker; give the finished set."""
        if self._rows:
            self._write_shard()
        _write_table(self.folder / "failures.parquet", pa.Table.from_pylist(self._failures, FAILURE_SCHEMA))
        marker = {
            "schema_version": SCHEMA_VERSION,
            "width": self.width,
            "n_rows": self._n_rows,
            "n_shards": self._n_shards,
            "n_failures": len(self._failures),
            **self.metadata,
        }
        with written_beside(self.folder / MARKER) as temporary:
            temporary.write_text(json.dumps(marker, indent=2, sort_keys=True))
        return TemplateSet.open(self.folder)

    def _write_shard(self) -> None:
        shape = schema(self.width)
        columns = {
            name: [np.asarray(getattr(row, name)).ravel() if pa.types.is_fixed_size_list(shape.field(name).type) else getattr(row, name) for row in self._rows]
            for name in shape.names
        }
        faces = {"image_id": columns["image_id"], "face": [row.jpeg for row in self._rows]}
        _write_table(self.folder / f"faces-{self._n_shards:05d}.parquet", pa.table(faces, FACE_SCHEMA))
        _write_table(self.folder / f"templates-{self._n_shards:05d}.parquet", pa.table(columns, shape))
        self._n_rows += len(self._rows)
        self._n_shards += 1
        self._rows = []

    def __enter__(self) -> "TemplateWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()


@dataclass(frozen=True)
class TemplateSet:
    """A finished template set on disk, read column by column when asked."""

    folder: Path
    metadata: dict[str, Any]

    @classmethod
    def open(cls, folder: Path | str) -> "TemplateSet":
        """Open a finished set.

        Raises: ValueError where the folder is no finished template set, or one of a newer schema.
        """
        folder = Path(folder)
        marker = folder / MARKER
        if not marker.is_file():
            found = "it is unfinished: run the same extract command again" if any(folder.glob("*.parquet")) else "make one with the extract entry point"
            raise ValueError(f"templates: {folder} is not a finished template set (no {MARKER}); {found}.")
        metadata = json.loads(marker.read_text())
        if metadata["schema_version"] > SCHEMA_VERSION:
            raise ValueError(f"templates: {folder} has schema {metadata['schema_version']}; this version reads up to {SCHEMA_VERSION}.")
        return cls(folder, metadata)

    def __len__(self) -> int:
        return self.metadata["n_rows"]

    @property
    def width(self) -> int:
        """How many numbers a template has."""
        return self.metadata["width"]

    @cached_property
    def templates(self) -> Float32[np.ndarray, "n d"]:
        """All templates as the recogniser gave them, in row order."""
        return np.concatenate([batch for batch in self._lists("template")]) if len(self) else np.empty((0, self.width), np.float32)

    @cached_property
    def image_ids(self) -> list[str]:
        return self.column("image_id").tolist()

    @cached_property
    def identities(self) -> np.ndarray:
        return self.column("identity")

    @cached_property
    def mean(self) -> Float32[np.ndarray, " d"]:
        """The mean template."""
        return self.templates.mean(axis=0, dtype=np.float64).astype(np.float32)

    @cached_property
    def scale(self) -> float:
        """The factor that brings E‖x‖² to 1 (the paper, section 5)."""
        return float(1 / np.sqrt(np.square(self.templates, dtype=np.float64).sum(axis=1).mean()))

    @property
    def digest(self) -> str:
        """A short hash of the rows' content: equal sets have equal digests."""
        content = hashlib.sha256()
        for image_id, template in zip(self.image_ids, self.templates, strict=True):
            content.update(image_id.encode() + template.tobytes())
        return content.hexdigest()[:16]

    def column(self, name: str) -> np.ndarray:
        """One column in row order; lists come back as (n, length) arrays."""
        kind = schema(self.width).field(name).type
        if pa.types.is_fixed_size_list(kind):
            return np.concatenate(list(self._lists(name)))
        dtype = object if pa.types.is_string(kind) else kind.to_pandas_dtype()
        return np.concatenate([np.asarray(table.column(name).to_pylist(), dtype=dtype) for table in self._tables("templates", [name])])

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
        """The images that gave no row, each with its reason."""
        table = pq.read_table(self.folder / "failures.parquet")
        return [(row["image_id"], row["reason"]) for row in table.to_pylist()]

    def _shards(self, kind: str) -> list[Path]:
        return sorted(self.folder.glob(f"{kind}-*.parquet"))

    def _tables(self, kind: str, columns: list[str]) -> Iterator[pa.Table]:
        for path in self._shards(kind):
            yield pq.read_table(path, columns=columns)

    def _lists(self, name: str) -> Iterator[np.ndarray]:
        length = schema(self.width).field(name).type.list_size
        for table in self._tables("templates", [name]):
            for chunk in table.column(name).chunks:
                yield chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, length)


def _write_table(path: Path, table: pa.Table) -> None:
    with written_beside(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
