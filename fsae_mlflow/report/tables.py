"""Tables as CSV files, and numbers in tables."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from fsae_mlflow.files.atomic import atomic_write


def write_csv(path: Path, lines: Iterable[Sequence[object]]) -> Path:
    """Write lines of values, the first of them the header, as CSV."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return path


def probability(p: float) -> str:
    """A probability to two digits, or that it is below 1e-300."""
    return "< 1e-300" if p < 1e-300 else f"{p:.2g}"
