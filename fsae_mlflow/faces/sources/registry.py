"""The kinds of source: one line each."""

from collections.abc import Callable
from fnmatch import fnmatchcase

from fsae_mlflow.faces.pictures import Source
from fsae_mlflow.faces.sources.bins import PairBin
from fsae_mlflow.faces.sources.folder import Folder
from fsae_mlflow.faces.sources.lists import CsvList, ParquetList
from fsae_mlflow.faces.sources.orl import Orl
from fsae_mlflow.faces.sources.tars import TarShards
from fsae_mlflow.faces.storage import Location

SOURCES: dict[str, Callable[[str], Source]] = {
    "orl": Orl,
    "*.csv": CsvList,
    "*.tsv": CsvList,
    "*.parquet": ParquetList,
    "*.bin": PairBin,
    "*.tar": TarShards,
}
"""What opens a `faces` of this name, or of this pattern (in lower case, and without the ?query of a URI)."""


def open_source(faces: str) -> Source:
    """The pictures that `faces` names: a name or file that fits a line of `SOURCES`, else a folder.

    Raises: ValueError if it does not exist or cannot be read.
    """
    path = faces.lower().split("?")[0] if "://" in faces else faces.lower()
    for pattern, kind in SOURCES.items():
        if faces == pattern or ("*" in pattern and fnmatchcase(path, pattern)):
            return kind(faces)
    if Location.of(faces).kind == "file":
        raise ValueError(f"faces: {faces} is a file of an unknown kind; give a folder or one of {', '.join(SOURCES)}.")
    return Folder(faces)
