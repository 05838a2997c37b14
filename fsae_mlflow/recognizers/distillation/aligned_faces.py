"""The aligned faces that a student learns from, out of any source that extract reads."""

import numpy as np
from jaxtyping import Int64, UInt8

from fsae_mlflow.faces import decoding
from fsae_mlflow.faces.alignment import fitted
from fsae_mlflow.faces.sources.registry import open_source


class AlignedFaces:
    """The pictures of a source, aligned already, in its order; each is decoded when asked for.

    Raises: ValueError for a source that does not exist or has fewer than two identities.
    """

    def __init__(self, faces: str) -> None:
        self.name = faces
        self.pictures = list(open_source(faces))
        self.image_ids = [picture.image_id for picture in self.pictures]
        self.identities = np.array([picture.identity for picture in self.pictures])
        if (n_identities := len(np.unique(self.identities))) < 2:
            raise ValueError(
                f"faces must have at least two identities, to hold some out; {faces} has {n_identities}: give a folder "
                "with one sub-folder per identity, a list with a column identity, a .bin or .tar shards."
            )

    def read(self, rows: Int64[np.ndarray, " batch"]) -> UInt8[np.ndarray, "batch h w 3"]:
        """The RGB pixels (0…255) of these rows; a picture of another size than an aligned face is resized.

        Raises: ValueError for a picture that cannot be read.
        """
        return np.stack([self._pixels(row) for row in rows.tolist()])

    def _pixels(self, row: int) -> np.ndarray:
        face = decoding.read(self.pictures[row])
        if face.pixels is None:
            reason = face.reason.removesuffix(".")
            raise ValueError(f"faces: {face.picture.image_id} of {self.name} cannot be read ({reason}); remove it.")
        return fitted(face.pixels)
