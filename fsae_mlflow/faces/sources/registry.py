"""The kinds of source by name: one line each."""

import re

from fsae_mlflow.faces.pictures import Source
from fsae_mlflow.faces.sources.bins import PairBin
from fsae_mlflow.faces.sources.folder import Folder, orl
from fsae_mlflow.faces.sources.lists import CsvList, ParquetList
from fsae_mlflow.faces.sources.tars import TarShards


def open_source(faces: str) -> Source:
    """The pictures of "orl", a folder, a .csv, .tsv or .parquet list, an insightface .bin, or .tar shards.

    Raises: ValueError where it does not exist or cannot be understood.
    """
    if faces == "orl":
        return orl()
    kinds = {r"\.[ct]sv": CsvList, r"\.parquet": ParquetList, r"\.bin": PairBin, r"\.tar": TarShards}
    for ending, kind in kinds.items():
        if re.search(ending + r"(\?|$)", faces.lower()):
            return kind(faces)
    return Folder(faces)
