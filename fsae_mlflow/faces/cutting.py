"""Decoded pictures → aligned faces."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image

from fsae_mlflow.faces import alignment
from fsae_mlflow.faces.aligned import FACE_SIZE, FacePixels
from fsae_mlflow.faces.decoding import Decoded
from fsae_mlflow.faces.detection.keypoints import Faces
from fsae_mlflow.faces.detection.mtcnn import FaceFinder
from fsae_mlflow.faces.pictures import Picture

CENTRAL_SHARE = 0.5  # of the shorter side: about what an aligned face covers of an LFW picture
NO_FACE = "No face was found in the picture."

Readable = tuple[Picture, UInt8[np.ndarray, "_ _ 3"]]


@dataclass(frozen=True)
class AlignedFace:
    """An aligned face with where it was found: box and keypoints in pixels of the upright picture.

    The probability is MTCNN's (0…1). For a central crop it is 0 and the keypoints are nan.
    """

    picture: Picture
    number: int
    pixels: FacePixels
    box: Float32[np.ndarray, "4"]
    keypoints: Float32[np.ndarray, "5 2"]
    probability: float
    source_width: int
    source_height: int

    @property
    def image_id(self) -> str:
        """The picture's id; from the second face of a picture on, followed by #1, #2, …."""
        return f"{self.picture.image_id}#{self.number}" if self.number else self.picture.image_id


class FaceCutter:
    """Finds, selects and aligns the faces of pictures.

    `aligned`: pictures show one aligned face each; nothing is searched or warped. `face`: which face of a picture to
    take (see `Faces.chosen`). `no_face`: "record" a picture without a face as a failure, or take its "central_crop".
    `min_face` (pixels) and `min_face_share` (of the shorter side): the smallest face to search for. Before detection,
    pictures are enlarged `enlarge` times and padded by `pad` of their shorter side.
    """

    def __init__(
        self,
        *,
        aligned: bool,
        face: str,
        no_face: str,
        min_face: float,
        min_face_share: float,
        enlarge: int,
        pad: float,
        device: torch.device,
    ) -> None:
        self.aligned, self.face, self.no_face, self.enlarge, self.pad = aligned, face, no_face, enlarge, pad
        self.growth = (enlarge * (1 + 2 * pad)) ** 2  # how many times more pixels are searched
        self.find = FaceFinder(min_face=min_face, min_face_share=min_face_share / (1 + 2 * pad), device=device)

    def __call__(self, batch: Sequence[Decoded]) -> tuple[list[AlignedFace], list[tuple[str, str]]]:
        """The faces of a batch in its order, and (image id, reason) for each picture without one."""
        readable = [(item.picture, item.pixels) for item in batch if item.pixels is not None]
        faces = list(self._as_given(readable) if self.aligned else self._found(readable))
        taken = {id(face.picture) for face in faces}  # two pictures may have the same image id
        failures = [(item.picture.image_id, item.reason or NO_FACE) for item in batch if id(item.picture) not in taken]
        return faces, failures

    def _as_given(self, pictures: Sequence[Readable]) -> Iterator[AlignedFace]:
        faces = [alignment.fitted(pixels) for _, pixels in pictures]
        keypoints, probabilities = self.find.keypoints_of_aligned(np.stack(faces)) if faces else ([], [])
        for (picture, pixels), face, points, probability in zip(pictures, faces, keypoints, probabilities, strict=True):
            height, width = pixels.shape[:2]
            whole, scale = np.array([0, 0, width, height], np.float32), np.array([width, height]) / FACE_SIZE
            in_picture = ((points + 0.5) * scale - 0.5).astype(np.float32)
            yield AlignedFace(picture, 0, face, whole, in_picture, float(probability), width, height)

    def _found(self, pictures: Sequence[Readable]) -> Iterator[AlignedFace]:
        found = self.find([self._prepared(pixels) for _, pixels in pictures])
        for (picture, pixels), faces in zip(pictures, found, strict=True):
            yield from self._cut(picture, pixels, self._placed(faces, pixels))

    def _cut(
        self, picture: Picture, pixels: UInt8[np.ndarray, "height width 3"], found: Faces
    ) -> Iterator[AlignedFace]:
        height, width = pixels.shape[:2]
        chosen = found.chosen(self.face, width, height)
        for number, index in enumerate(chosen):
            keypoints, box, probability = found.keypoints[index], found.boxes[index], float(found.probabilities[index])
            yield AlignedFace(
                picture, number, alignment.align(pixels, keypoints), box, keypoints, probability, width, height
            )
        if not len(chosen) and self.no_face == "central_crop":
            whole, unknown = np.array([0, 0, width, height], np.float32), np.full((5, 2), np.nan, np.float32)
            face = alignment.central_crop(pixels, CENTRAL_SHARE)
            yield AlignedFace(picture, 0, face, whole, unknown, 0.0, width, height)

    def _border(self, pixels: UInt8[np.ndarray, "height width 3"]) -> int:
        return round(self.pad * min(pixels.shape[:2]))

    def _prepared(self, pixels: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "tall wide 3"]:
        """The picture as MTCNN gets it: MTCNN cuts its windows off at the picture's edge and stretches the rest, which
        moves the keypoints of faces there; a border avoids it.
        """
        if border := self._border(pixels):
            pixels = np.pad(pixels, ((border, border), (border, border), (0, 0)), mode="edge")
        if self.enlarge == 1:
            return pixels
        size = pixels.shape[1] * self.enlarge, pixels.shape[0] * self.enlarge
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))

    def _placed(self, found: Faces, pixels: UInt8[np.ndarray, "height width 3"]) -> Faces:
        """The faces of the prepared picture in coordinates of the picture itself."""
        # Pixel centers lie at integers: the first two pixels of a picture enlarged twofold were at -0.25 and 0.25.
        boxes, keypoints = (
            ((points + 0.5) / self.enlarge - 0.5 - self._border(pixels)).astype(np.float32)
            for points in (found.boxes, found.keypoints)
        )
        return Faces(boxes, keypoints, found.probabilities)
