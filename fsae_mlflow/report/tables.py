"""Tables as CSV files."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from fsae_mlflow.atomic import atomic_write


def write_csv(path: Path, lines: Iterable[Sequence[object]]) -> Path:
    """Write lines of values, the first of them the header, as CSV."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return path
