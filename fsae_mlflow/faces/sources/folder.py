"""Pictures in folders: one folder per identity."""

import errno
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.pictures import PICTURE_SUFFIXES, Picture, suffix_of
from fsae_mlflow.faces.storage import Location


class Folder:
    """Every picture below a folder, sorted; its id is the path from there, its identity the first folder of that path.

    A folder that cannot be listed, or is a link to a folder that holds it, is given as a picture that cannot be read.

    Raises: UserError if there is no such folder.
    """

    attributes: Mapping[str, str] = {}

    def __init__(self, faces: str, *, suffixes: Collection[str] = PICTURE_SUFFIXES) -> None:
        self.name, self.location, self.suffixes = faces, Location.of(faces), suffixes
        self.passed_over: Counter[str] = Counter()
        if self.location.kind != "folder":
            raise UserError(
                f"faces: there is no folder {faces}; give a folder with one folder of pictures per identity."
            )

    def __iter__(self) -> Iterator[Picture]:
        self.passed_over.clear()
        return self._below(self.location, "", frozenset())

    def _below(self, folder: Location, prefix: str, above: frozenset[str]) -> Iterator[Picture]:
        place = folder.resolved
        try:
            if place in above:
                raise OSError(errno.ELOOP, "it is a link to a folder that holds it")
            entries = list(folder.entries())
        except OSError as error:
            if folder.root:
                raise
            if not prefix:
                raise UserError(f"faces: {self.name} cannot be read ({error.strerror}); make it readable.") from error
            path = prefix.removesuffix("/")
            fault = f"The folder cannot be read ({error.strerror})."
            yield Picture(path, path.split("/", 1)[0], folder, fault=fault)
            return
        for location, kind, size in entries:
            path = prefix + location.name
            if kind == "folder":
                yield from self._below(location, path + "/", above | {place})
            elif (suffix := suffix_of(path)) in self.suffixes:
                identity = path.split("/", 1)[0] if prefix else PurePosixPath(path).stem
                yield Picture(path, identity, location, length=size)
            else:
                self.passed_over[suffix] += 1
