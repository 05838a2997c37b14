"""Small template sets for tests."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from fsae_mlflow.templates.schema import FaceRow
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.templates.writing import finish, write_shard


def face_row(image_id: str, template: np.ndarray, jpeg: bytes) -> FaceRow:
    return FaceRow(
        image_id=image_id,
        identity=image_id.split("/")[0],
        template=template.astype(np.float32),
        probability=0.99,
        box=np.array([1, 2, 3, 4], np.float32),
        keypoints=np.arange(10, dtype=np.float32).reshape(5, 2),
        source_width=250,
        source_height=240,
        yaw=0.1,
        sharpness=100.0,
        interocular=60.0,
        jpeg=jpeg,
    )


def labeled_set(folder: Path, jpeg: bytes, *, n_people: int = 40) -> TemplateSet:
    """Six faces of each person, width 8; every third has the attribute glasses, which the first dimension tells."""
    rng, rows, kinds = np.random.default_rng(0), [], {"glasses": "bool"}
    for i in range(6 * n_people):
        has = i % 3 == 0
        row = face_row(f"p{i // 6:02d}/{i:03d}.jpg", rng.normal(size=8) + 6 * has * np.eye(8)[0], jpeg)
        rows.append(replace(row, attributes=(has,)))
    write_shard(folder, 0, rows, [], width=8, n_pictures=len(rows), attributes=kinds)
    return finish(folder, n_shards=1, width=8, metadata={}, attributes=kinds)


class TemplateWriter:
    """Write rows in shards of `shard_rows`; leaving the `with` block without an error finishes the set."""

    def __init__(self, folder: Path, *, width: int, metadata: dict[str, Any], shard_rows: int = 50_000) -> None:
        self.folder, self.width, self.metadata, self.shard_rows = folder, width, metadata, shard_rows
        self.rows: list[FaceRow] = []
        self.failures: list[tuple[str, str]] = []
        self.n_written = 0
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, rows: Iterable[FaceRow]) -> None:
        for row in rows:
            self.rows.append(row)
            if len(self.rows) == self.shard_rows:
                self._write_shard()

    def fail(self, image_id: str, reason: str) -> None:
        self.failures.append((image_id, reason))

    def close(self) -> TemplateSet:
        if self.rows or self.failures:
            self._write_shard()
        return finish(self.folder, n_shards=self.n_written, width=self.width, metadata=self.metadata)

    def _write_shard(self) -> None:
        n_pictures = len(self.rows) + len(self.failures)
        write_shard(self.folder, self.n_written, self.rows, self.failures, width=self.width, n_pictures=n_pictures)
        self.n_written += 1
        self.rows, self.failures = [], []

    def __enter__(self) -> "TemplateWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
