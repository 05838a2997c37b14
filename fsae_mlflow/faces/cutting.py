"""Decoded pictures → aligned faces."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image

from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.faces import alignment
from fsae_mlflow.faces.decoding import Decoded
from fsae_mlflow.faces.detection.keypoints import Faces
from fsae_mlflow.faces.detection.mtcnn import FaceFinder
from fsae_mlflow.faces.pictures import Picture

CENTRAL_SHARE = 0.5  # of the shorter side: what the aligned faces of LFW's centerd photographs cover
NO_FACE = "No face was found in the picture."

Decodable = tuple[Picture, UInt8[np.ndarray, "_ _ 3"]]


@dataclass(frozen=True)
class AlignedFace:
    """A face cut out of its picture; box and keypoints in pixels of the upright picture.

    The probability is MTCNN's (0…1). For a central crop it is 0 and the keypoints are nan.
    """

    picture: Picture
    number: int
    pixels: UInt8[np.ndarray, "112 112 3"]
    box: Float32[np.ndarray, "4"]
    keypoints: Float32[np.ndarray, "5 2"]
    probability: float
    source_width: int
    source_height: int

    @property
    def image_id(self) -> str:
        """The picture's id; the second, third, … face of a picture has #1, #2, … after it."""
        return f"{self.picture.image_id}#{self.number}" if self.number else self.picture.image_id


class FaceCutter:
    """Finds, chooses and aligns the faces of pictures as the settings say."""

    def __init__(self, settings: ExtractSettings, *, device: torch.device) -> None:
        self.settings = settings
        self.enlarge, self.pad = settings.before_detection
        self.growth = (self.enlarge * (1 + 2 * self.pad)) ** 2  # how many times more pixels are searched
        share = settings.min_face_share / (1 + 2 * self.pad)
        self.find = FaceFinder(min_face=settings.min_face, min_face_share=share, device=device)

    def __call__(self, batch: Sequence[Decoded]) -> tuple[list[AlignedFace], list[tuple[str, str]]]:
        """The faces of a batch in its order, and (image id, reason) for each picture that gave none."""
        good = [(item.picture, item.pixels) for item in batch if item.pixels is not None]
        faces = list(self._as_given(good) if self.settings.aligned else self._found(good))
        reasons = {item.picture.image_id: item.reason or NO_FACE for item in batch}
        for face in faces:
            reasons.pop(face.picture.image_id, None)
        return faces, list(reasons.items())

    def _as_given(self, pictures: Sequence[Decodable]) -> Iterator[AlignedFace]:
        faces = [alignment.fitted(pixels) for _, pixels in pictures]
        places, probabilities = self.find.keypoints_of_aligned(np.stack(faces)) if faces else ([], [])
        for (picture, pixels), face, keypoints, probability in zip(pictures, faces, places, probabilities, strict=True):
            height, width = pixels.shape[:2]
            whole, unit = np.array([0, 0, width, height], np.float32), np.array([width, height]) / alignment.SIZE
            there = ((keypoints + 0.5) * unit - 0.5).astype(np.float32)
            yield AlignedFace(picture, 0, face, whole, there, float(probability), width, height)

    def _found(self, pictures: Sequence[Decodable]) -> Iterator[AlignedFace]:
        found = self.find([self._prepared(pixels) for _, pixels in pictures])
        for (picture, pixels), faces in zip(pictures, found, strict=True):
            yield from self._cut(picture, pixels, self._placed(faces, pixels))

    def _cut(
        self, picture: Picture, pixels: UInt8[np.ndarray, "height width 3"], found: Faces
    ) -> Iterator[AlignedFace]:
        height, width = pixels.shape[:2]
        chosen = found.chosen(self.settings.face, width, height)
        for number, index in enumerate(chosen):
            keypoints, box, probability = found.keypoints[index], found.boxes[index], float(found.probabilities[index])
            yield AlignedFace(
                picture, number, alignment.align(pixels, keypoints), box, keypoints, probability, width, height
            )
        if not len(chosen) and self.settings.no_face == "central_crop":
            whole, unknown = np.array([0, 0, width, height], np.float32), np.full((5, 2), np.nan, np.float32)
            face = alignment.central_crop(pixels, CENTRAL_SHARE)
            yield AlignedFace(picture, 0, face, whole, unknown, 0.0, width, height)

    def _border(self, pixels: UInt8[np.ndarray, "height width 3"]) -> int:
        return round(self.pad * min(pixels.shape[:2]))

    def _prepared(self, pixels: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "tall wide 3"]:
        """MTCNN cuts its windows off at the picture's edge and stretches what is left, which moves the keypoints."""
        if border := self._border(pixels):
            pixels = np.pad(pixels, ((border, border), (border, border), (0, 0)), mode="edge")
        if self.enlarge == 1:
            return pixels
        size = pixels.shape[1] * self.enlarge, pixels.shape[0] * self.enlarge
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))

    def _placed(self, found: Faces, pixels: UInt8[np.ndarray, "height width 3"]) -> Faces:
        """Where the faces of the prepared picture lie in the picture itself."""
        # pixel centers lie at integers: the first two of a picture enlarged twofold were at -0.25 and 0.25
        boxes, keypoints = (
            ((places + 0.5) / self.enlarge - 0.5 - self._border(pixels)).astype(np.float32)
            for places in (found.boxes, found.keypoints)
        )
        return Faces(boxes, keypoints, found.probabilities)
