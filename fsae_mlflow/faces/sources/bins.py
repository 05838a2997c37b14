"""Pair sets of InsightFace in .bin files (lfw.bin, cfp_fp.bin, agedb_30.bin, …)."""

import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fsae_mlflow.faces.pictures import Picture
from fsae_mlflow.faces.storage import Location

# A pair set is a pickled tuple of encoded pictures (bytes or arrays of bytes) and truth values. The unpickler makes
# nothing else: an unrestricted one runs any code that the file names.
ALLOWED = {
    ("_codecs", "encode"),
    ("builtins", "bytes"),
    ("builtins", "bytearray"),
    ("__builtin__", "bytes"),
    ("__builtin__", "bytearray"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


class PairBin:
    """The pictures N/a and N/b of each pair N, with the columns `pair` and `same`.

    Both faces of a genuine pair have the identity N, those of an impostor pair Na and Nb. The faces are already
    aligned: use aligned=true.

    Raises: ValueError if the file does not exist or is not a pair set.
    """

    def __init__(self, faces: str) -> None:
        self.name, self.location = faces, Location.of(faces)
        self.attributes: Mapping[str, str] = {"pair": "int", "same": "bool"}
        if self.location.kind != "file":
            raise ValueError(f"faces: there is no file {faces}; give a .bin file of InsightFace.")
        self.pictures, self.same = _load(self.location)

    def __iter__(self) -> Iterator[Picture]:
        for place, content in enumerate(self.pictures):
            pair, side = place // 2, "ab"[place % 2]
            same = self.same[pair]
            identity = f"{pair:05d}" if same else f"{pair:05d}{side}"
            yield Picture(f"{pair:05d}/{side}", identity, self.location, attributes=(pair, same), content=content)


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a pair set does not contain")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _load(location: Location) -> tuple[list[bytes], list[bool]]:
    try:
        with location.open() as file:
            pictures, same = _Restricted(file, encoding="bytes").load()
        contents = [_bytes(picture) for picture in pictures]
        truths = [bool(value) for value in same]
    except Exception as error:  # a broken pickle can raise any error
        raise ValueError(f"faces: {location} is not a pair set of InsightFace ({error}); give another file.") from error
    if len(contents) != 2 * len(truths) or not all(isinstance(content, bytes) for content in contents):
        raise ValueError(
            f"faces: {location} is not a pair set of InsightFace: it must hold two encoded pictures for each truth "
            f"value; it holds {len(contents)} and {len(truths)}."
        )
    return contents, truths


def _bytes(picture: Any) -> Any:
    return np.asarray(picture, np.uint8).tobytes() if isinstance(picture, np.ndarray) else picture
