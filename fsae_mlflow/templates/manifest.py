"""The manifest of a template set: what each file of its shards held when it was written."""

from dataclasses import dataclass
from pathlib import Path

from fsae_mlflow.files.documents import sha256

AGAIN = "run the same extract command again, which makes only this shard again"


@dataclass(frozen=True)
class ShardFile:
    """A file with its rows, bytes and SHA-256; the pictures of its shard, and how many of them gave no row."""

    file: str
    rows: int
    bytes: int
    checksum: str
    n_pictures: int
    n_failures: int

    def fault(self, folder: Path) -> str:
        """How the file in `folder` differs from what was written; empty if it does not."""
        path = folder / self.file
        if not path.is_file():
            return "is missing"
        if (size := path.stat().st_size) != self.bytes:
            return f"has {size:,} bytes where {self.bytes:,} were written"
        return "" if sha256(path) == self.checksum else "differs from the file that was written (SHA-256 in set.json)"
