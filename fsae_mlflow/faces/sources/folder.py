"""Pictures in folders: one folder per identity."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath

from fsae_mlflow.faces.pictures import PICTURE_SUFFIXES, Picture
from fsae_mlflow.faces.storage import Location


class Folder:
    """Every picture below a folder, sorted; its id is the path from there, its identity the first folder of that path.

    Raises: ValueError if there is no such folder.
    """

    attributes: Mapping[str, str] = {}

    def __init__(self, faces: str, *, suffixes: Collection[str] = PICTURE_SUFFIXES) -> None:
        self.name, self.location, self.suffixes = faces, Location.of(faces), suffixes
        if self.location.kind != "folder":
            raise ValueError(
                f"faces: there is no folder {faces}; give a folder with one folder of pictures per identity."
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
