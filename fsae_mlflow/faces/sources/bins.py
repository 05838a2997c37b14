"""Pair sets of InsightFace in .bin files (lfw.bin, cfp_fp.bin, agedb_30.bin, …)."""

from collections.abc import Iterator, Mapping

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.pictures import Picture
from fsae_mlflow.faces.sources.pair_pickle import read_pairs
from fsae_mlflow.faces.storage import Location


class PairBin:
    """The pictures N/a and N/b of each pair N, with the columns `pair` and `same`.

    Both faces of a genuine pair have the identity N, those of an impostor pair Na and Nb. The faces are already
    aligned: use aligned=true.

    Raises: UserError if the file does not exist or is not a pair set.
    """

    def __init__(self, faces: str) -> None:
        self.name, self.location = faces, Location.of(faces)
        self.attributes: Mapping[str, str] = {"pair": "int", "same": "bool"}
        if self.location.kind != "file":
            raise UserError(f"faces: there is no file {faces}; give a .bin file of InsightFace.")
        self.pictures, self.same = _load(self.location)

    def __iter__(self) -> Iterator[Picture]:
        for place, content in enumerate(self.pictures):
            pair, side = place // 2, "ab"[place % 2]
            same = self.same[pair]
            identity = f"{pair:05d}" if same else f"{pair:05d}{side}"
            yield Picture(f"{pair:05d}/{side}", identity, self.location, attributes=(pair, same), content=content)


def _load(location: Location) -> tuple[list[bytes], list[bool]]:
    try:
        with location.open() as file:
            contents, truths = read_pairs(file)
    except (ValueError, OSError) as error:
        raise UserError(f"faces: {location} is not a pair set of InsightFace ({error}); give another file.") from error
    if len(contents) != 2 * len(truths):
        raise UserError(
            f"faces: {location} is not a pair set of InsightFace: it must hold two encoded pictures for each "
            f"boolean; it holds {len(contents)} and {len(truths)}."
        )
    return contents, truths
